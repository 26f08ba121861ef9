"""`python -m kama`."""

from kama.cli import main

main()

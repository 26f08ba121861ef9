"""`kama`, and `python -m kama`."""

from __future__ import annotations

import sys


def main() -> None:
    """Ctrl-C ends it also while what the command needs is still being imported."""
    try:
        from kama.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()

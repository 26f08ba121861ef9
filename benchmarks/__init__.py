"""Measurements of kama next to a bare relay, run by hand: see README.md."""

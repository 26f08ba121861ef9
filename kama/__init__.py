"""kama: a real-time chat node you can see into."""

__version__ = "0.1.0"

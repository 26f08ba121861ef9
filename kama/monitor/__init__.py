"""Watching nodes: where frames come from, what is known from them, and what it means. Nothing here draws."""

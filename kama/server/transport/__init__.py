"""From a socket's first bytes to whole messages, and back."""

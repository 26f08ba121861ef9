"""A load tool: made-up users who talk over a node, what that took, and a ledger of what became of each message."""

"""The node: accepts, stores, routes and proves the delivery of messages."""

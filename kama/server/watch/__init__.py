"""What is shown to whom watches a node, and what they may do."""

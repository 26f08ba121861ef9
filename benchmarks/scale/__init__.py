"""What a message costs as a cluster grows: measured on the real parts, then simulated with what was measured."""

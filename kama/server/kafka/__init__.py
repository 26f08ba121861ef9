"""What KafkaBroker is made of."""

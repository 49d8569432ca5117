"""Training: looks and data lists, losses, metrics, and fine-tuning a head."""

"""Measurements: accuracy on held-out digital patients, heads on other trunks, speed."""

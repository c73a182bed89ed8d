"""Predicted training times beside those of training."""

"""Implicit regularization enhancement on language models."""

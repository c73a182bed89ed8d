"""Whole train steps compiled for TPU slices without a TPU."""

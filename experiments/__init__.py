"""Experiments with pdt_optax: a guest of the library that uses only its front door."""

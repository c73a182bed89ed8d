"""Rank promotion is an error everywhere; dtype promotion where optax is not involved."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

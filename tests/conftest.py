"""Rank promotion is an error everywhere; dtype promotion where optax is not involved."""

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="module")
def _fresh_caches():
    """Compiled programs hold memory maps, of which a process has only so many."""
    yield
    jax.clear_caches()

"""Rank promotion is an error everywhere; eight CPU devices for the tests of sharding."""

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True, scope="module")
def _fresh_caches():
    """Compiled programs hold memory maps, of which a process has only so many."""
    yield
    jax.clear_caches()

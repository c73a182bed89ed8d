"""Rank promotion is an error everywhere; eight CPU devices for the tests of sharding.

Most programs here run for less time than they compile, so they are compiled quickly. Tests of
numbers and of memory see what users get, by `suites.AS_FOR_USERS`.
"""

import os

import jax
import pytest
import suites

# Read when the first program is compiled, here and in programs that the tests start.
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *suites.XLA_FLAGS])

if not hasattr(jax, "enable_x64"):  # Before jax 0.8.
    jax.enable_x64, jax.set_mesh = jax.experimental.enable_x64, jax.sharding.use_mesh

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)

QUICKLY = "jax_disable_most_optimizations"
OPTIMIZED = {"test_bench", "test_fuzz", "test_memory", "test_sums"}


def pytest_configure(config: pytest.Config) -> None:
    """What one module has compiled the next need not; workers do not share half-written files."""
    os.environ[QUICKLY.upper()] = "1"  # For programs that the tests start.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir(f"jax-{worker}")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True, scope="module")
def _fresh_caches(request: pytest.FixtureRequest):
    """Compiled programs hold memory maps, of which a process has only so many.

    Those of a module are compiled all in the same way.
    """
    jax.config.update(QUICKLY, request.module.__name__ not in OPTIMIZED)
    yield
    jax.clear_caches()

"""What the compiled step does with arrays of the parameters' size."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest
from suites import AS_FOR_USERS
from transforms import extrapolating

SHAPE = (512, 256)
SIZE = 4 * SHAPE[0] * SHAPE[1]
PARAMS = {
    "large": {"w": jax.ShapeDtypeStruct(SHAPE, jnp.float32)},
    "large and small": {
        "w": jax.ShapeDtypeStruct(SHAPE, jnp.float32),
        "v": jax.ShapeDtypeStruct((100, 30), jnp.float32),
        "b": jax.ShapeDtypeStruct((256,), jnp.float32),
    },
}


def compiled(params, **options):
    tx = optax.chain(optax.sgd(0.1), extrapolating(10, **options))

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, params)
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile(AS_FOR_USERS)


@pytest.mark.parametrize(("history_dtype", "most"), [(None, 2), ("int8", 6)])
@pytest.mark.parametrize("kind", PARAMS)
def test_temporaries_beside_the_updates(kind, history_dtype, most):
    """Where an event and a snapshot happen; an ordinary step copies nothing of that size.

    XLA's CPU compiler holds the decoded increments while it sums their products.
    """
    program = compiled(PARAMS[kind], history_dtype=history_dtype)
    entry = program.as_text().split("\nENTRY ")[1]
    assert not re.findall(r"\[512,256\]\S* copy\(", entry)
    memory = program.memory_analysis()
    small = sum(4 * leaf.size for leaf in PARAMS[kind].values()) - SIZE
    assert memory.temp_size_in_bytes < (1 + most + 0.02) * SIZE + 24 * small
    assert memory.alias_size_in_bytes >= SIZE * (1 + {None: 5, "int8": 2}[history_dtype])

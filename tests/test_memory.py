"""What the compiled step does with arrays of the parameters' size."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

import pdt_optax

SHAPE = (512, 256)


def compiled(**options):
    tx = optax.chain(optax.sgd(0.1), pdt_optax.pdt(10, **options))
    params = {"w": jax.ShapeDtypeStruct(SHAPE, jnp.float32)}

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, params)
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()


@pytest.mark.parametrize("history_dtype", [None, "int8"])
def test_beside_the_updates_a_step_holds_nothing_of_the_parameters_size(history_dtype):
    """Neither to merge nor to take a snapshot, where one copy makes the weights the anchor."""
    program = compiled(history_dtype=history_dtype)
    entry = program.as_text().split("\nENTRY ")[1]
    assert not re.findall(r"\[512,256\]\S* copy\(", entry)
    assert len(re.findall(r"f32\[512,256\]\S* copy\(", program.as_text())) == 1
    memory = program.memory_analysis()
    size = 4 * SHAPE[0] * SHAPE[1]
    assert memory.temp_size_in_bytes < 1.15 * size
    assert memory.alias_size_in_bytes >= size * (1 + {None: 5, "int8": 2}[history_dtype])

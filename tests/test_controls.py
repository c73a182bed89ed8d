"""The controls: against plain loops."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
import numpy as np
import optax
import optax.contrib
import pytest

from experiments.runs import controls
from experiments.runs.controls import CONTROLS
from experiments.runs.criteria import CRITERIA, random_like
from experiments.runs.optimizers import SCHEDULES, Settings
import pdt_optax

START = np.array([1.0, -2.0], np.float32)


def run(tx: optax.GradientTransformation, steps: int) -> tuple[Any, Any]:
    """Descends on half the sum of squares."""
    params: Any = jnp.array(START)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for _ in range(steps):
        updates, state = update(params, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("steps", [4, 5, 12])
def test_lookahead(steps: int):
    params, state = run(controls.lookahead(optax.sgd(0.1)), steps)
    fast = slow = START
    for step in range(1, steps + 1):
        fast = 0.9 * fast
        if step % 5 == 0:
            fast = slow = slow + 0.5 * (fast - slow)
    np.testing.assert_allclose(params, fast, rtol=1e-5)
    np.testing.assert_allclose(CONTROLS["lookahead"].evaluated(state, params), slow, rtol=1e-5)


@pytest.mark.parametrize("steps", [2, 7, 16])
def test_latest_average(steps: int):
    params, state = run(controls.latest_average(optax.sgd(0.1), every=2), steps)
    np.testing.assert_allclose(params, 0.9**steps * START, rtol=1e-5)
    ends = [0.9**step * START for step in range(2, steps + 1, 2)]
    average = CONTROLS["latest_average"].evaluated(state, params)
    np.testing.assert_allclose(average, np.mean(ends[-5:], axis=0), rtol=1e-5)


def test_a_random_mask_has_the_ratio_of_paper_among_what_moves():
    random = np.random.default_rng(0)
    move = jnp.array(random.normal(size=20_000) * (random.random(20_000) < 0.5), jnp.float32)
    reach = jnp.array(random.uniform(0, 10, 20_000), jnp.float32)
    proposal = pdt_optax.criteria.Proposal(
        move, (reach * move,), jnp.array(5.0), jnp.array(0), leaf=1
    )
    criterion: Any = CRITERIA["random"]
    moves = np.asarray(move != 0)
    accepted = np.asarray(criterion(proposal))
    assert accepted[moves].mean() == pytest.approx(0.5, abs=0.02)
    paper = np.asarray(pdt_optax.criteria.all_of("paper")(proposal))
    assert (accepted & paper)[moves].mean() == pytest.approx(0.25, abs=0.02)
    later = np.asarray(criterion(proposal._replace(event=jnp.array(1))))
    assert (accepted == later).mean() == pytest.approx(0.5, abs=0.02)


def test_a_random_mask_counts_over_all_devices():
    """Half of the devices see what is accepted, and none draws what another does."""
    size, number = 4096, 8
    move = jnp.ones(number * size)
    path = jnp.where(jnp.arange(number * size) < number // 2 * size, 6.0, 0.0)
    mesh = jax.make_mesh((number,), ("x",), axis_types=(AxisType.Auto,))

    def mask(move: jax.Array, path: jax.Array) -> jax.Array:
        proposal = pdt_optax.criteria.Proposal(move, (path,), jnp.array(5.0), jnp.array(0), leaf=1)
        return random_like("paper", "x")(proposal)

    split = jax.P("x")
    masks = jax.jit(jax.shard_map(mask, mesh=mesh, in_specs=split, out_specs=split))(move, path)
    parts = np.asarray(masks).reshape(number, size)
    np.testing.assert_allclose(parts.mean(axis=1), 0.5, atol=0.04)
    same = (parts[0] == parts[1:]).mean(axis=1)
    np.testing.assert_allclose(same, 0.5, atol=0.04)


def test_schedule_free_has_the_peak_of_a_schedule_that_rises():
    settings = Settings(SCHEDULES["cosine"](0.5, 20, 0.0, 10, 0), 0.5, momentum=0, weight_decay=0)
    tx = CONTROLS["schedule_free"].build(optax.identity(), settings, "sgd", 1)
    ones = jnp.ones(2)
    free = optax.contrib.schedule_free_sgd(0.5)
    moves = [tx.update(ones, tx.init(ones), ones)[0] for tx in (tx, free)]
    np.testing.assert_allclose(*moves)

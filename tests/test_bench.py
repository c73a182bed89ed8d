"""What `make bench` compares with, and what it makes of its records."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.benchmarks import report, textbook
import pdt_optax

ROOT = pathlib.Path(__file__).parents[1]
HORIZON = 5
# Seconds of two rounds; a copy moves 12 arrays, an event 13.
ROWS = [
    {
        "kind": "event",
        "of": size,
        "seconds": {
            "event, h = 5": [3.0 * scale, 5.0 * scale],
            "event, h = 10": [5.0 * scale, 9.0 * scale],
            "snapshot, h = 5": [1.0 * scale, 1.0 * scale],
            "copy": [1.2 * scale, 1.2 * scale],
            "textbook, torch": [30.0 * scale, 90.0 * scale],
        },
    }
    for size, scale in ((10**6, 1.0), (10**8, 100.0))
]


def test_textbook_events_and_ours_jump_to_the_same_place():
    rng = np.random.default_rng(0)
    snapshots = rng.standard_normal((60, 5)).cumsum(axis=1)
    arrived = snapshots[:, -1] + rng.standard_normal(60)
    expected = textbook.pydmd_event(snapshots, arrived, HORIZON)
    assert 0 < np.mean(expected != arrived) < 1
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        found = textbook.event(jnp, jnp.asarray(snapshots), jnp.asarray(arrived), HORIZON)
        np.testing.assert_allclose(found, expected, rtol=1e-8)
        tx = pdt_optax.pdt(1, pdt_optax.Extrapolate(horizon=HORIZON, interval=0))
        params: Any = jnp.asarray(snapshots[:, 0])
        state = tx.init(params)
        for position in (*snapshots.T[1:], arrived):
            updates, state = tx.update(position - params, state, params)
            params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, expected, rtol=1e-6)


def test_an_event_is_what_it_adds_to_a_snapshot():
    row = ROWS[0]
    assert report.medians(row)["event, h = 5"] == 3.0
    assert report.medians(row)["copy"] == pytest.approx(1.3)
    assert report.ratio(row, "event, h = 10", "event, h = 5") == 2.0
    assert report.ratio(row, "textbook, torch", "event, h = 5") == 20.0


def test_exponent():
    assert report.exponent(ROWS) == pytest.approx(1.0)

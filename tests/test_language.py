"""The language study: its control, its table, and what its records say."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pages
import pytest

from experiments.language import report, study
from experiments.language.arms import ARMS, PERIODS
from experiments.language.outer import outer_nesterov
from experiments.runs import records
from experiments.runs.step import count
import pdt_optax

RATE = optax.sgd(0.1)


def trained(tx, steps):
    """Sums of squares about 1."""
    params = {"a": jnp.array([3.0, -2.0]), "b": jnp.array(0.5)}
    state = tx.init(params)
    update = jax.jit(tx.update)
    for _ in range(steps):
        grads = jax.tree.map(lambda p: p - 1, params)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(("every", "rate", "momentum"), [(1, 0.7, 0.9), (3, 0.5, 0.6)])
def test_outer_nesterov_is_that_of_numpy(every, rate, momentum):
    weights = np.array([3.0, -2.0, 0.5])
    slow, velocity = weights.copy(), np.zeros(3)
    for step in range(1, 11):
        weights = weights - 0.1 * (weights - 1)
        if step % every == 0:
            move = weights - slow
            velocity = momentum * velocity + move
            weights = slow = slow + rate * (momentum * velocity + move)
    found = trained(optax.chain(RATE, outer_nesterov(every, rate, momentum)), 10)
    np.testing.assert_allclose(np.append(found["a"], found["b"]), weights, rtol=1e-5)


def test_an_outer_rate_of_one_without_momentum_changes_nothing():
    found = trained(optax.chain(RATE, outer_nesterov(3, 1.0, 0.0)), 10)
    chex.assert_trees_all_close(found, trained(RATE, 10), rtol=1e-6)


def test_jumps_are_counted():
    tx = pdt_optax.pdt(1, pdt_optax.Extrapolate(history=3, start=3, interval=1))
    params = jnp.array([1.0, 2.0])
    state, counts = tx.init(params), []
    for step in range(4):
        updates, after = tx.update(jnp.full(2, 1.1**step), state, params)
        params, counts = (
            optax.apply_updates(params, updates),
            [*counts, count(after, "jumps") - count(state, "jumps")],
        )
        state = after
    assert list(map(int, counts)) == [0, 0, 1, 0]
    assert count(optax.EmptyState(), "jumps") == 0


def row(arm, seed, losses, stage="report", rate=0.1, jumps=0):
    seconds = [1.0 + n for n in range(len(losses))]
    run = {"stage": stage, "arm": arm, "learning_rate": rate, "seed": seed}
    return {**run, "jumps": jumps, "validation_losses": losses, "seconds": seconds}


def test_table():
    """Against AdamW of the same seed; arms in the order of the registry."""
    rows = [
        row("adamw", 3, [3.0, 2.0]),
        row("adamw", 4, [3.0, 1.0]),
        row("muon", 3, [2.0, 1.5], jumps=2),
        row("muon", 4, [3.0, 0.5], jumps=4),
        row("lawa", 3, [3.0, 2.5]),
        row("lawa", 4, [0.9, 1.6]),
    ]
    lawa = "2.050 [1.600, 2.500] | +0.550 [+0.500, +0.600] | 0 | 50 on 1 of 2 |"
    assert report.table(rows[::-1]).splitlines()[2:] == [
        "| AdamW | 0.1 | 1.500 [1.000, 2.000] | +0.000 | 0 | 100 |",
        "| Muon | 0.1 | 1.000 [0.500, 1.500] | -0.500 | 3 [2, 4] | 75 |",
        f"| {ARMS['lawa'].title} | 0.1 | {lawa}",
    ]


def test_the_best_rate_is_that_of_the_tuning_runs():
    rows = [row("adamw", 1, [loss], "tune", rate) for rate, loss in ((1.0, float("nan")), (2.0, 5))]
    assert report.best_rate([*rows, row("adamw", 3, [1.0], rate=3.0)], "adamw") == 2.0
    with pytest.raises(SystemExit, match="tune must come first"):
        report.best_rate(rows, "muon")


def test_steps_are_whole_stretches():
    with pytest.raises(ValueError, match="`steps` must be a multiple of 50, got 60"):
        study.Settings(steps=60)


@pytest.mark.slow
def test_a_study_runs_and_goes_on(tmp_path, capsys):
    arms = ("adamw", "verify_10")
    config = study.Settings(run_dir=str(tmp_path), arms=arms, steps=100, seeds=(0,))
    study.main(config)
    capsys.readouterr()
    study.main(config)
    assert capsys.readouterr().out.count("\n") == 4
    rows = records.read_rows(tmp_path)
    assert [r["arm"] for r in rows] == ["adamw"] * 6 + ["verify_10"]
    assert all(r["validation_losses"][1] < r["validation_losses"][0] < 4.2 for r in rows)


@pytest.mark.parametrize(
    ("text", "count", "harm"), [("language", 6, "early_dmd_10"), ("language_numpy", 3, "dmd_50")]
)
def test_verified_jumps_as_shipped_gain(text, count, harm):
    """What the records must show, beside jumps with a DMD, which do harm."""
    rows = records.read_rows(pages.RESULTS / text)
    last = {
        (r["arm"], r["seed"]): r["validation_losses"][-1] for r in rows if r["stage"] == "report"
    }
    seeds = [seed for arm, seed in last if arm == "adamw"]
    assert len(seeds) == count

    def above(arm):
        return np.array([last[arm, seed] - last["adamw", seed] for seed in seeds])

    for every in PERIODS:
        assert above(f"verify_{every}").max() < 0.005
    assert above("verify_20").max() < -0.015
    assert above("verify_20").mean() < -0.024
    assert above(harm).mean() > 0.015

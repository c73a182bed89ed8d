"""Rivals on equal clocks, the study's records and report, the demo."""

import dataclasses
import functools
import itertools
import json
import math
import pathlib
import subprocess
import sys

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import pytest
from suites import quick

from experiments.science import (
    crossing,
    levenberg_marquardt,
    page,
    rivals,
    running,
    runs,
    summary,
    tasks,
    tuning,
)
from experiments.science.methods import Optax
from experiments.science.race import Chunk, Point, Race

ROOT = pathlib.Path(__file__).parents[1]
TINY = {"width": 4, "depth": 1}


def ticking():
    """A clock that stands a second further at each look."""
    return itertools.count().__next__


def run_of(method, losses, seed=0, task="poisson", errors=None):
    setting = runs.Setting(task, method, seed, 0.1, float(len(losses)))
    count = list(range(len(losses)))
    return runs.Run(
        setting, "finished", 7, 0.5, [float(c) for c in count], count, losses, errors or losses
    )


@pytest.mark.parametrize("method", quick(rivals.RIVALS, "lbfgs", "kron", "lm", "solve"))
def test_a_rival_lowers_the_loss(method):
    task = tasks.make("regression_synthetic", **TINY, examples=40, batch_size=16)
    points = [c.point for c in Race(task, rivals.RIVALS[method], clock=ticking()).run(0, 1e-2, 100)]
    assert points[-1].loss < 0.9 * points[0].loss
    assert points[-1].seconds >= 100
    assert [p.steps for p in points] == sorted({p.steps for p in points})


def test_stages_share_the_seconds_and_the_rate_falls():
    """The optimizer adds its rate to each weight, so that the rates can be read from them."""
    adding = Optax(lambda rate: _adding(rate))
    rival = rivals.Rival("two", ((0.25, adding), (0.75, adding)))
    task = tasks.make("poisson", **TINY)
    chunks = list(Race(task, rival, clock=ticking()).run(0, 1.0, 8.0))
    weights = [float(chunk.params[0]["b"][0]) for chunk in chunks]
    steps = np.diff([chunk.point.steps for chunk in chunks])
    np.testing.assert_array_equal(steps, 1)
    cosine = lambda x: 0.01 + 0.99 * (1 + math.cos(math.pi * x)) / 2  # noqa: E731
    expected = [*(cosine(k / 2) for k in range(2)), *(cosine(k / 6) for k in range(6))]
    np.testing.assert_allclose(np.diff(weights), expected, rtol=1e-4)


def _adding(rate):
    def update(updates, state, params=None):
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, rate), updates), state

    return optax.GradientTransformation(lambda params: (), update)


def test_fresh_points_differ_from_step_to_step():
    task = tasks.make("regression_synthetic", **TINY, examples=40, batch_size=4)
    fixed, fresh = (
        [c.point.loss for c in Race(task, rivals.RIVALS["adam"], way, ticking()).run(0, 1e-2, 5)]
        for way in (False, True)
    )
    assert fixed[0] == fresh[0]
    assert fixed[-1] != fresh[-1]
    assert not rivals.RIVALS["lbfgs"].fits(task, fresh=True)
    assert rivals.RIVALS["adam"].fits(task, fresh=True)


def test_a_run_ends_when_the_loss_is_not_finite():
    task = tasks.make("regression_synthetic", **TINY, examples=40)
    broken = rivals.Rival("broken", ((1.0, Optax(lambda rate: _adding(jnp.nan * rate))),))
    points = [chunk.point for chunk in Race(task, broken, clock=ticking()).run(0, 1.0, 50.0)]
    assert len(points) == 2
    assert not math.isfinite(points[-1].loss)


def test_what_does_not_fit_is_left_out():
    assert not rivals.RIVALS["lm"].fits(tasks.make("circuit", qubits=2, layers=1))
    assert rivals.RIVALS["lm"].fits(tasks.make("poisson", "medium"))
    assert not rivals.RIVALS["lm"].fits(tasks.make("poisson", "large"))


@pytest.mark.parametrize(("n", "p"), [(5, 9), (9, 5)])
def test_levenberg_marquardt_step_is_that_of_its_equations(n, p):
    """Both forms solve (J^T J + damping D) step = -J^T r."""
    generator = np.random.default_rng(0)
    matrix, residuals = generator.normal(size=(n, p)), generator.normal(size=n)
    with jax.enable_x64(True):
        move = levenberg_marquardt.damped(
            jnp.asarray(matrix), jnp.asarray(residuals), jnp.array(0.3)
        )
    normal = matrix.T @ matrix
    expected = -np.linalg.solve(normal + 0.3 * np.diag(np.diag(normal)), matrix.T @ residuals)
    np.testing.assert_allclose(move, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "name", quick(["poisson", "wave", "regression_tables", "neural_ode"], "poisson")
)
def test_jacobian_by_rows_is_that_of_forward_mode(name):
    small = {"trajectories": 5, "steps": 3} if name == "neural_ode" else {}
    task = tasks.make(name, **TINY, **small)
    assert task.residuals is not None
    residuals = functools.partial(task.residuals, points=task.points)
    params = task.init(jax.random.key(0))
    weights, unravel = ravel_pytree(params)
    matrix = levenberg_marquardt.jacobian(task.residuals, params, task.points)
    expected = jax.jacfwd(lambda w: ravel_pytree(residuals(unravel(w)))[0])(weights)
    np.testing.assert_allclose(matrix, expected, atol=1e-5 * np.abs(expected).max())


def test_levenberg_marquardt_ends_where_that_of_optimistix_does():
    """On Rosenbrock's function and a third residual."""

    def function(w, _=None):
        return jnp.stack([10 * (w[1] - w[0] ** 2), 1 - w[0], 0.5 * (w[1] - 3)])

    with jax.enable_x64(True):
        solver = optimistix.LevenbergMarquardt(rtol=1e-10, atol=1e-10)
        expected = optimistix.least_squares(function, solver, jnp.array([-1.2, 1.0])).value
        weights = jnp.array([-1.2, 1.0])
        state = levenberg_marquardt.Damping(jnp.array(1e-2), jnp.array(2.0))

        @jax.jit
        def step(weights, state):
            matrix = jax.jacfwd(function)(weights)
            return levenberg_marquardt.step(function, matrix, weights, state)

        losses = []
        for _ in range(60):
            weights, state = step(weights, state)
            losses.append(float(jnp.sum(function(weights) ** 2)))
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert losses == sorted(losses, reverse=True)


def test_numbers_of_a_table():
    recorded = [
        run_of("adam", [4.0, 2.0, 1.0]),
        run_of("adam", [4.0, 3.0, 3.0], seed=1),
        run_of("verify", [4.0, 0.5, 0.6]),
        run_of("verify", [4.0, 4.0, math.nan], seed=1),
    ]
    assert summary.cells(recorded, lambda run: run.best_loss) == {
        ("poisson", "adam"): [1.0, 3.0],
        ("poisson", "verify"): [0.5, 4.0],
    }
    seconds = summary.seconds_to_base(recorded)
    assert seconds == {("poisson", "adam"): [2.0, 1.0], ("poisson", "verify"): [1.0, math.inf]}
    compiled = summary.seconds_to_base(recorded, compiled=True)
    assert compiled["poisson", "adam"] == [2.5, 1.5]
    assert summary.table(recorded, seconds).splitlines()[2:] == [
        "| poisson | **1.5** (1 to 2) | - (1 to -) |"
    ]
    errors = summary.cells(recorded, lambda run: run.final_error)
    assert errors["poisson", "verify"] == [0.6, math.inf]
    assert "* Adam: poisson.\n* Adam with Verify: nowhere." in summary.winners(recorded)


def test_variants_are_held_to_the_default():
    recorded = [
        run_of("solve", [4.0, 1.0]),
        run_of("solve", [4.0, 4.0], seed=1),
        run_of("solve_reset", [4.0, 0.1]),
        run_of("solve_reset", [11.0, 10.0], seed=1),
    ]
    assert summary.variants(recorded).splitlines()[2:] == ["| Solve, momentum reset | 0.5 |"]


def test_less_time_beside_adam():
    recorded = [
        run_of("adam", [4.0, 1.0]),
        run_of("adam", [4.0, 3.0], seed=1),
        run_of("lbfgs", [4.0, 0.1]),
    ]
    assert not summary.in_a_third(recorded)
    short = [run_of(rivals.THIRD, [4.0, 1.0]), run_of(rivals.THIRD, [4.0, 3.5], seed=1)]
    assert summary.in_a_third([*recorded, *short]).splitlines()[2:] == [
        "| poisson | 2 and 0.666667 | 1 of 2 | 2 (1 to 3) | 2.2 (1 to 3.5) | "
        "2 (1 to 3) | 2.2 (1 to 3.5) |"
    ]
    assert "| 1 of 2 |" in summary.report([*recorded, *short])
    assert rivals.ALL[rivals.THIRD].stages[0][1] is rivals.RIVALS["solve"].stages[0][1]


def test_seconds_by_number_of_weights():
    recorded = []
    for weights, losses in ((10, [4.0, 1.0, 2.0]), (1000, [4.0, 3.0, 3.0])):
        for method, values in (("adam", [4.0, 3.0, 2.0]), ("lm", losses)):
            run = run_of(method, values)
            setting = dataclasses.replace(run.setting, size=f"{weights}x1")
            recorded.append(dataclasses.replace(run, setting=setting, weights=weights))
    assert crossing.seconds_by_weights(recorded) == {
        "adam": {10: 2.0, 1000: 2.0},
        "lm": {10: 1.0, 1000: math.inf},
    }
    assert crossing.table(recorded).splitlines()[2:] == ["| 10 | 2 | 1 |", "| 1,000 | 2 | - |"]
    (axes,) = crossing.draw(recorded).axes
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 1, 1]


def test_the_rate_with_the_least_loss_is_chosen():
    def tried(rate, seed, final):
        setting = runs.Setting("wave", "adam", seed, rate, 1.0)
        status = "finished" if math.isfinite(final) else "diverged"
        return runs.Run(setting, status, 1, 0.0, [1.0], [1], [final], [final])

    finals = {0.1: (1e-6, math.nan), 0.01: (1e-3, 1e-1), 0.001: (1e-2, 1e-1)}
    recorded = [tried(r, s, x) for r, pair in finals.items() for s, x in enumerate(pair)]
    chosen = tuning.choose(recorded, {"wave": {"muon": 0.5}, "image": {"adam": 0.2}})
    assert chosen == {"wave": {"muon": 0.5, "adam": 0.01}, "image": {"adam": 0.2}}


def test_records_are_read_as_they_were_written(tmp_path):
    runs.start(tmp_path)
    run = run_of("adam", [4.0, 2.0, math.nan])
    runs.append(tmp_path, run)
    (read,) = runs.read(tmp_path)
    assert read.setting == run.setting
    np.testing.assert_array_equal(read.loss, run.loss)
    assert json.loads((tmp_path / runs.CONFIG).read_text())["versions"]["jax"] == jax.__version__


def program(name, *arguments):
    command = [sys.executable, "-m", f"experiments.science.{name}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_page_of_a_study(tmp_path):
    runs.start(tmp_path)
    task = tasks.make("poisson", **TINY)
    settings = [
        runs.Setting("poisson", method, seed, 1e-2, 0.02)
        for method in ("adam", "verify")
        for seed in (0, 1)
    ]
    running.run_all(tmp_path, task, settings)
    recorded = runs.read(tmp_path)
    assert [(run.setting.method, run.setting.seed) for run in recorded] == [
        ("adam", 0), ("verify", 0), ("adam", 1), ("verify", 1)
    ]  # fmt: skip
    assert {run.weights for run in recorded} == {17}
    kept = np.load(runs.field_path(tmp_path, recorded[0].setting))
    wanted = task.field.reference
    assert np.linalg.norm(kept - wanted) / np.linalg.norm(wanted) == pytest.approx(
        recorded[0].final_error, rel=1e-3
    )
    paths = list(page.write(tmp_path, recorded))
    assert [path.name for path in paths] == ["losses.png", "poisson.png", "report.md"]
    text = (tmp_path / "report.md").read_text()
    assert "| task | Adam | Adam with Verify |" in text
    assert "![poisson](poisson.png)" in text


def test_runs_of_a_seed_take_turns(tmp_path, monkeypatch):
    """Whoever has the most seconds left is next, so what slows the machine slows all alike."""
    turns = []

    def chunks(self, seed, rate, seconds):
        for k in range(1 + round(rate)):
            turns.append((rate, seed))
            yield Chunk(Point(k * seconds / rate, k, 1.0, 1.0), None)

    class Unhurried:
        compile_seconds = 0.0
        run = chunks

        def __init__(self, task, rival, fresh):
            pass

    monkeypatch.setattr(running, "Race", Unhurried)
    task = tasks.make("circuit", qubits=2, layers=1)
    hows = [("adam", 0, 2.0), ("adam", 1, 1.0), ("muon", 0, 4.0)]
    running.run_all(tmp_path, task, [runs.Setting("circuit", *how, 6.0) for how in hows])
    adam, muon, other = (2.0, 0), (4.0, 0), (1.0, 1)
    assert turns == [adam, adam, muon, muon, muon, adam, muon, muon, other, other]
    assert [len(run.steps) for run in runs.read(tmp_path)] == [3, 5, 2]


@pytest.mark.slow
def test_study_tunes_and_skips_what_is_recorded(tmp_path):
    shared = (f"--run_dir={tmp_path}", f"--tuned={tmp_path}/tuned.json", "--tasks=poisson")
    done = program("study", *shared, "--seconds=0.05", "--tune", "--seeds=100", "--methods=adam")
    assert done.returncode == 0, done.stderr
    tuned = json.loads((tmp_path / "tuned.json").read_text())
    assert tuned["poisson"]["adam"] in rivals.RATES
    for _ in range(2):
        done = program("study", *shared, "--seconds=0.05", "--seeds=0", "--methods=adam,lbfgs")
        assert done.returncode == 0, done.stderr
    later = runs.read(tmp_path)[len(rivals.RATES) :]
    assert [run.setting.method for run in later] == ["adam", "lbfgs"]
    assert later[0].setting.rate == tuned["poisson"]["adam"]
    done = program("study", *shared, "--methods=muon")
    assert "must hold a rate of muon on poisson" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "argument", "message"),
    [
        ("study", "--tasks=poison", "`tasks` must be of poisson,"),
        ("study", "--seeds=a", "`seeds` must be integers, separated by commas, got a."),
        ("study", "--seconds=-1", "`seconds` must be a finite number above 0, got -1.0."),
        ("report", "--run_dir=/none", "`run_dir` must hold records of a study, got /none"),
    ],
)
def test_bad_flags_are_told(name, argument, message):
    done = program(name, argument)
    assert done.returncode
    assert message in done.stderr


@pytest.mark.slow
def test_demo(tmp_path):
    done = program("demo", "--task=wave", "--seconds=0.2", f"--run_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "u_tt = 4 u_xx" in done.stdout
    assert "L-BFGS" in done.stdout
    assert {path.name for path in tmp_path.glob("*.png")} == {"losses.png", "solution.png"}


@pytest.mark.slow
def test_scaling(tmp_path):
    arguments = ("--seconds=0.1", "--seeds=0", f"--run_dir={tmp_path}")
    done = program("scaling", "--widths=3,5", "--learning_rates=1e-2,1e-2", *arguments)
    assert done.returncode == 0, done.stderr
    assert "| weights | Adam | L-BFGS | Levenberg-Marquardt |" in done.stdout
    assert (tmp_path / "scaling.png").exists()
    done = program("scaling", "--widths=3", *arguments)
    assert "`learning_rates` must be as many as `widths`, 1, got 4." in done.stderr

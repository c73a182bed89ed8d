"""The post-training study: its task, its algorithms against NumPy, and what its records say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pages
import pytest

from experiments.post_training import grpo, linearity, policy, report, study, sums, training
from experiments.post_training.trend import trend
from experiments.runs import records
import pdt_optax

PROBLEMS = sums.problems()
RANDOM = np.random.default_rng(0)


def test_problems_are_all_sums_and_none_is_in_both_splits():
    train, held_out = sums.problems()
    texts = [sums.decode(row) for row in np.concatenate([train, held_out])]
    assert len(set(texts)) == len(texts) == 10_000
    for text in texts[::97]:
        left, right = text.split("=")
        assert sum(map(int, left.split("+"))) == int(right)


def test_the_reward_asks_for_every_digit():
    solved = jnp.array(sums.encode(["47+85=132"] * 4))
    drawn = jnp.array(sums.encode(["47+85=132", "47+85=133", "47+85=032", "47+85=123"]))
    assert sums.exact_match(drawn, solved).tolist() == [1, 0, 0, 0]


def test_expected_and_greedy_rewards_are_those_of_sampling():
    params = jax.tree.map(lambda p: 8 * p, policy.init(0))  # Sharper than at first.
    row = jnp.array(sums.encode(["47+85=132"]))
    drawn = jax.jit(policy.sample)(params, jnp.repeat(row, 2000, 0), jax.random.key(0))
    answers, counts = np.unique(np.array(drawn), axis=0, return_counts=True)
    assert (answers[:, : sums.PROMPT] == np.array(row)[:, : sums.PROMPT]).all()
    likeliest = jnp.array(answers[[counts.argmax()]])
    expected = jax.jit(policy.expected_reward)(params, likeliest)
    np.testing.assert_allclose(expected, counts.max() / 2000, atol=0.05)
    greedy = jax.jit(policy.greedy_reward)
    assert greedy(params, likeliest) == 1
    assert greedy(params, likeliest.at[0, -1].add(1)) == 0


def test_advantages_are_those_of_numpy():
    rewards = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]], np.float32)
    found = grpo.advantages(jnp.array(rewards))
    expected = [[1, -1, -1, 1], [0, 0, 0, 0], np.array([-1, 3, -1, -1]) / 3**0.5]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_the_surrogate_is_that_of_numpy():
    now, then = RANDOM.normal(size=(2, 6, 3)) / 5
    gain = RANDOM.normal(size=6)
    terms = []
    for a, b, g in zip(now, then, gain, strict=True):
        ratio = np.exp(a - b)
        terms.append(np.minimum(ratio * g, np.clip(ratio, 0.8, 1.2) * g))
    found = grpo.surrogate(jnp.array(now), jnp.array(then), jnp.array(gain))
    np.testing.assert_allclose(found, -np.mean(terms), rtol=1e-5)


def a_path(snapshots=9, size=50):
    """A bent way with noise."""
    times = np.linspace(0, 1, snapshots)[:, None]
    directions = RANDOM.normal(size=(2, size))
    noise = 0.05 * RANDOM.normal(size=(snapshots, size))
    return 3 + times * directions[0] + times**2 * directions[1] + noise


def test_linearity_is_that_of_polyfit():
    path = a_path()
    since = path[1:] - path[0]
    times = np.arange(len(since))
    shares = []
    for values in since.T:
        left = values - np.polyval(np.polyfit(times, values, 1), times)
        shares.append(1 - left.var() / values.var())
    values, vectors = np.linalg.eigh(since @ since.T)
    on_first = since @ (since.T @ vectors[:, -1])
    found = linearity.linearity(path)
    np.testing.assert_allclose(found.weights, np.mean(shares))
    np.testing.assert_allclose(found.energy, values[-1] / values.sum())
    np.testing.assert_allclose(found.trend, np.corrcoef(times, on_first)[0, 1] ** 2)


def relex_of_numpy(path, time):
    """By singular vectors and polyfit, all snapshots in hand."""
    since = path[1:] - path[0]
    direction = np.linalg.svd(since)[2][0]
    times = np.arange(1, len(path))
    line = np.polyfit(times, since @ direction, 1)
    return path[0] + np.polyval(line, time) * direction


@pytest.mark.parametrize("time", [8, 12.5, 40])
def test_relex_and_the_secant(time):
    path = a_path()
    np.testing.assert_allclose(linearity.relex(path, time), relex_of_numpy(path, time))
    secant = path[0] + (path[-1] - path[0]) * time / 8
    np.testing.assert_allclose(linearity.secant(path, time), secant)


def test_trend_is_relex():
    path = a_path(6)
    basis = np.vstack([np.diff(path, axis=0), path[-1:]])
    gram = pdt_optax.predictors.Gram(jnp.array(basis @ basis.T, jnp.float32), jnp.array(50.0))
    found = path[-1] + np.array(trend()(gram, 4), np.float64) @ basis
    expected = [relex_of_numpy(path, 5 + ahead) for ahead in range(1, 5)]
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_trend_of_weights_that_rest_moves_nothing():
    gram = pdt_optax.predictors.Gram(jnp.zeros((5, 5)).at[-1, -1].set(9.0), jnp.array(3.0))
    assert jnp.isfinite(trend()(gram, 3)).all()


def row(arm, seed, rewards, stage="report", rate=0.1, **more):
    run = {"stage": stage, "start": "noisy", "arm": arm, "learning_rate": rate, "seed": seed}
    return {**run, "jumps": 2, "value_calls": 0, "rewards": rewards, "greedy": 1.0, **more}


def test_table():
    """Against GRPO of the same seed, the mean of the last four evaluations."""
    rows = [
        row("falling", 3, [0.5, 0.9, 0.9, 0.9, 0.9]),
        row("falling", 4, [0.2, 0.3, 0.3, 0.3, 0.3]),
        row("grpo", 3, [0.1, 0.7, 0.9, 0.7, 0.9]),
        row("grpo", 4, [0.1, 0.4, 0.4, 0.4, 0.4]),
    ]
    cells = [line.split(" | ")[2:] for line in report.table(rows).splitlines()[2:]]
    assert cells[0][1:3] == ["0.600 [0.400, 0.800]", "+0.000"]
    assert cells[0][-1] == "12 |"
    assert cells[1][1:3] == ["0.600 [0.300, 0.900]", "+0.000 [-0.100, +0.100]"]
    assert cells[1][-1] == "10 on 1 of 2 |"


def test_the_best_rate_is_that_of_the_tuning_runs():
    rows = [
        row("grpo", seed, [reward], "tune", rate)
        for seed, rate, reward in ((1, 1.0, 0.5), (2, 1.0, 0.5), (1, 2.0, 0.9), (2, 2.0, 0.3))
    ]
    assert report.rate(rows, "noisy", "grpo") == 2.0
    assert report.rate(rows, "noisy", "slow") == pytest.approx(0.2)
    with pytest.raises(SystemExit, match="tune must come first"):
        report.rate(rows, "early", "grpo")


def test_steps_are_whole_stretches():
    with pytest.raises(ValueError, match="`steps` must be a multiple of 5, got 42"):
        study.Settings(steps=42)


def test_a_study_runs_and_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(grpo, "PROMPTS", 4)
    monkeypatch.setattr(training, "problems", lambda: sums.Problems(*(p[:64] for p in PROBLEMS)))
    monkeypatch.setitem(study.ARMS, "grpo", dataclasses.replace(study.ARMS["grpo"], rates=(0.1,)))
    config = study.Settings(
        str(tmp_path), starts=("early",), arms=("grpo",), steps=40, most=10,
        seeds=(0,), tuning_seeds=(1,),
    )  # fmt: skip
    study.main(config)
    first = capsys.readouterr().out
    study.main(config)
    assert capsys.readouterr().out == first[first.index("| start") :]
    assert len(first.split("a random walk")) == 2


def test_what_the_page_says():
    """Of the records: what loses, what gains, and that a falling rate gains as much."""
    rows = [r for r in records.read_rows(pages.RESULTS / "post_training") if r["stage"] == "report"]
    last = {(r["start"], r["arm"], r["seed"]): np.mean(r["rewards"][-4:]) for r in rows}

    def above(arm, other="grpo", start="noisy"):
        return np.array([last[start, arm, seed] - last[start, other, seed] for seed in (3, 4, 5)])

    for name in (
        "dmd",
        "trend",
        "verify",
        "dmd_exact",
        "dmd_sampled",
        "slow_dmd",
        "slow_dmd_sampled",
    ):
        assert above(name).min() > 0
    assert above("linear").max() < -0.8
    assert above("trend").max() < 0.02 < above("dmd_sampled").min()
    assert above("falling", "dmd_sampled").mean() > 0
    assert abs(above("falling", "falling_dmd").mean()) < 0.005
    for r in rows:
        for found in r.get("stops", {}).values():
            assert found["rank one 1"] < found["stopped"] + 0.02
            if r["arm"] == "grpo":
                assert max(found["rank one end"], found["secant end"]) < found["stopped"] - 0.1

"""The experiments: data, model, run folder, scores, report, and the programs themselves."""

from collections.abc import Iterable
import dataclasses
import functools
import json
import math
import pathlib
import subprocess
import sys
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pages
import pytest
from small import few

from experiments import cli, report, reproduce, settings, toy, train
from experiments.configs import cpu, smoke
from experiments.configs.base import PDTConfig, RunConfig
from experiments.data import DATASETS, ArrayDataset, Examples, mnist5k
from experiments.models import MODELS
from experiments.reports import figures, summary, tables, time_to_target
from experiments.runs import loop, records, training, workloads
from experiments.runs.arms import build_arms
from experiments.runs.optimizers import OPTIMIZERS, SCHEDULES, Settings
from experiments.runs.records import EndRecord, EpochRecord, Record

ROOT = pathlib.Path(__file__).parents[1]


def small_mnist() -> ArrayDataset:
    """The first 320 training digits and 50 of each other split."""
    return few(mnist5k.load(), 320, 50)


def run_train(*arguments: str) -> None:
    train.main(*cli.parsed(arguments, RunConfig, train.Runtime))


def run_report(*arguments: str) -> None:
    report.main(*cli.parsed(arguments, report.Settings))


def run_reproduce(*arguments: str) -> None:
    reproduce.main(*cli.parsed(arguments, reproduce.Settings))


def epochs_of(rows: Iterable[Record], arm: str) -> list[EpochRecord]:
    return [row for row in rows if isinstance(row, EpochRecord) and row.arm == arm]


def ends_of(rows: Iterable[Record]) -> list[tuple[str, str, int]]:
    return [(row.arm, row.status, row.epochs) for row in rows if isinstance(row, EndRecord)]


# Data, models, optimizers.


def test_mnist5k_splits_are_stratified_disjoint_and_complete():
    dataset = mnist5k.load()
    splits = dataset.train, dataset.validation, dataset.test
    for split, per_class in zip(splits, (400, 50, 50), strict=True):
        np.testing.assert_array_equal(np.bincount(split.labels), [per_class] * 10)
        assert split.inputs.shape == (10 * per_class, 28, 28, 1)
        assert (split.inputs.dtype, split.labels.dtype) == (np.float32, np.int32)
        assert split.inputs.min() == pytest.approx((0 - 0.1307) / 0.3081)
        assert split.inputs.max() == pytest.approx((1 - 0.1307) / 0.3081)

    labels = np.concatenate([split.labels for split in splits])
    parts = mnist5k.stratified_split(labels, mnist5k.SPLIT_SIZES, mnist5k.SPLIT_SEED)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(5000))
    again = mnist5k.stratified_split(labels, mnist5k.SPLIT_SIZES, mnist5k.SPLIT_SEED)
    assert all(map(np.array_equal, parts, again))
    with pytest.raises(ValueError, match="does not divide"):
        mnist5k.stratified_split(np.repeat([0, 1], [7, 5]), (6, 3, 3), seed=0)


def test_batches_are_fixed_by_seed_and_epoch():
    dataset = mnist5k.load()

    def labels(seed: int, epoch: int) -> np.ndarray:
        return np.stack([batch.labels for batch in dataset.epoch_batches(seed, epoch, 256)])

    assert labels(0, 1).shape == (dataset.steps_per_epoch(256), 256) == (15, 256)
    np.testing.assert_array_equal(labels(0, 1), labels(0, 1))
    assert not np.array_equal(labels(0, 1), labels(0, 2))
    assert not np.array_equal(labels(0, 1), labels(1, 1))


def test_an_epoch_visits_no_example_twice():
    numbers = Examples(np.arange(10), -np.arange(10))
    batches = list(ArrayDataset(numbers, numbers, numbers, 10).epoch_batches(0, 1, batch_size=3))
    visited = np.concatenate([batch.inputs for batch in batches])
    assert len(set(visited.tolist())) == len(visited) == 9
    assert all(np.array_equal(batch.inputs, -np.asarray(batch.labels)) for batch in batches)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_descend_in_place(optimizer: str, schedule: str):
    rates = SCHEDULES[schedule](0.05, 20, 0.01, 2, 0)
    settings = Settings(rates, 0.05, momentum=0.9, weight_decay=0.01)
    tx = OPTIMIZERS[optimizer](settings)
    params: Any = {"w": jnp.ones(3)}
    state = tx.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(20):
        params, state = step(params, state)
    assert np.all(np.abs(params["w"]) < 1)


def test_cosine_ends_at_the_minimum():
    rate = SCHEDULES["cosine"](0.1, 100, 0.001, 0, 0)
    np.testing.assert_allclose([rate(0), rate(50), rate(100)], [0.1, 0.0505, 0.001], rtol=1e-5)


def test_a_cosine_rises_before_it_falls():
    rate = SCHEDULES["cosine"](0.1, 100, 0.001, 20, 0)
    places = [rate(step) for step in (0, 10, 20, 60, 100)]
    np.testing.assert_allclose(places, [0.01, 0.055, 0.1, 0.0505, 0.001], rtol=1e-5)


def test_a_cosine_falls_a_second_time_from_ten_times_the_minimum():
    rate = SCHEDULES["cosine"](0.1, 300, 0.001, 20, 100)
    places = [rate(step) for step in (20, 60, 99, 100, 200, 300)]
    last_of_first = 0.001 + 0.099 * (1 + np.cos(np.pi * 79 / 80)) / 2
    expected = [0.1, 0.0505, last_of_first, 0.01, 0.0055, 0.001]
    np.testing.assert_allclose(places, expected, rtol=1e-5)


def test_weight_decay_is_an_l2_term_of_sgd():
    tx = OPTIMIZERS["sgd"](
        Settings(SCHEDULES["constant"](0.5, 1, 0.0, 0, 0), 0.5, momentum=0, weight_decay=0.1)
    )
    params = {"w": np.full(2, 3, np.float32)}
    updates: Any = tx.update({"w": np.ones(2, np.float32)}, tx.init(params), params)[0]
    np.testing.assert_allclose(updates["w"], -0.5 * (1 + 0.1 * 3), rtol=1e-6)


# Scores.


def epochs(arm: str, losses, accuracies, seconds: float, seed: int = 0, mask=None):
    """Records of an arm whose epochs take equally long."""
    return [
        EpochRecord(seed, arm, i, i * seconds, loss, None, None, accuracy, mask_ratio=mask)
        for i, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True), 1)
    ]


def end(arm: str, seed: int = 0, status: str = "finished", test: float | None = 0.5):
    return EndRecord(seed, arm, status, 4, 1.0, 0.25, test)


HAND_MADE = [
    # The base's best train loss is at epoch 3, its best validation accuracy first at epoch 2.
    *epochs("base", [4.0, 3.0, 1.0, 2.0], [0.1, 0.6, 0.6, 0.5], seconds=1.0),
    *epochs("fast", [4.0, 0.9, 0.8, 0.7], [0.6, 0.5, 0.7, 0.7], seconds=1.2, mask=0.25),
    *epochs("slow", [4.0, 3.0, 2.0, 1.1], [0.1, 0.2, 0.3, 0.4], seconds=2.0),
    *epochs("wild", [4.0, 5.0, None], [0.1, 0.6, None], seconds=1.0),
    end("base"),
    end("fast"),
    end("slow"),
    end("wild", status="diverged", test=None),
    *epochs("base", [2.0, 1.0], [0.5, 0.6], seconds=1.0, seed=7),
    *epochs("fast", [2.0, 1.5], [0.7, 0.6], seconds=0.5, seed=7),
]


def test_scores_of_hand_made_records():
    scores = {(s.seed, s.arm): s for s in time_to_target.score(HAND_MADE)}

    base = scores[0, "base"]
    assert (base.loss_epochs, base.loss_seconds, base.loss_reduction) == (3, 3.0, 0.0)
    assert (base.accuracy_epochs, base.accuracy_seconds) == (2, 2.0)
    assert (base.train_loss, base.validation_accuracy, base.test_accuracy) == (2.0, 0.5, 0.5)
    assert (base.status, base.mask_ratio, base.compile_seconds) == ("finished", None, 0.25)

    fast = scores[0, "fast"]
    assert (fast.loss_epochs, fast.loss_seconds, fast.accuracy_epochs) == (2, 2.4, 1)
    assert fast.loss_reduction == pytest.approx(1 - 2.4 / 3)
    assert fast.accuracy_reduction == pytest.approx(1 - 1.2 / 2)
    assert fast.mask_ratio == 0.25

    slow = scores[0, "slow"]
    assert (slow.loss_epochs, slow.loss_seconds, slow.loss_reduction) == (None, None, None)
    assert (slow.accuracy_epochs, slow.train_loss) == (None, 1.1)

    wild = scores[0, "wild"]
    assert (wild.status, wild.loss_epochs, wild.accuracy_epochs) == ("diverged", None, 2)
    assert (wild.train_loss, wild.test_accuracy) == (None, None)

    assert (scores[7, "fast"].status, scores[7, "fast"].loss_epochs) == ("unfinished", None)
    assert scores[7, "fast"].accuracy_epochs == 1


def test_without_a_finite_base_there_is_no_target():
    alone = epochs("paper", [2.0, 1.0], [0.5, 0.6], seconds=1.0)
    diverged = epochs("base", [None], [None], seconds=1.0)
    for rows in (alone, [*diverged, *alone]):
        assert {s.loss_epochs for s in time_to_target.score(rows)} == {None}
        assert {s.accuracy_epochs for s in time_to_target.score(rows)} == {None}


def test_spread_counts_a_miss_as_infinite():
    assert time_to_target.spread([3, 1, 2]) == (2, 1, 3)
    assert time_to_target.spread([3, 1]) == (2, 1, 3)
    assert time_to_target.spread([1, None, 2]) == (2, 1, None)
    assert time_to_target.spread([1, None]) == (None, 1, None)
    assert time_to_target.spread([0.5, None, 0.7], miss=-math.inf) == (0.5, None, 0.7)


def test_tables_of_hand_made_records():
    scores = time_to_target.score(HAND_MADE)
    _, _, base, fast, slow, wild = tables.markdown(scores).splitlines()
    assert base.startswith("| base | 2.5 [2, 3] | 2.5 [2.0, 3.0] | 0 | 2 | 2.0 | 1.5 [1, 2] |")
    assert fast.startswith("| fast | never [2, never] | never [2.4, never] | - [-, 20] | 1 |")
    assert slow.startswith("| slow | never | never | - | never | never | 1.1 | 40.0 | 50.0 | - |")
    assert wild.startswith("| wild | never | never | - | 2 | 2.0 | diverged | - | - | - |")
    text = tables.text(scores).splitlines()
    assert len(text) == 3 + 1 + 6  # Two arms have ranges.
    assert max(map(len, text)) == len(text[3])
    alone = tables.markdown(time_to_target.score(epochs("paper", [1.0], [0.5], seconds=1.0)))
    assert alone.splitlines()[2] == "| paper | 1 | 50.0 | - | - |"


# The run folder.


def strict_json(line: str):
    def reject(token: str):
        raise ValueError(token)

    return json.loads(line, parse_constant=reject)


def test_records_survive_the_file_and_are_valid_json(tmp_path: pathlib.Path):
    records.start(tmp_path, {"epochs": 2})
    row = EpochRecord(0, "base", 1, 1.23456789, math.nan, math.inf, 1e-9, 0.5, True, 0.25)
    for record in (row, end("base")):
        records.append(tmp_path, record)
    lines = (tmp_path / records.RECORDS).read_text().splitlines()
    assert [strict_json(line)["kind"] for line in lines] == ["epoch", "end"]
    expected = EpochRecord(0, "base", 1, 1.23457, None, None, 1e-9, 0.5, True, 0.25)
    assert records.read(tmp_path) == [expected, end("base")]
    config = strict_json((tmp_path / records.CONFIG).read_text())
    assert config["config"] == {"epochs": 2}
    assert {"python", "jax", "jaxlib", "optax", "flax", "numpy", "pdt_optax"} == {
        *config["versions"]
    }


def test_a_run_folder_holds_one_configuration(tmp_path: pathlib.Path):
    records.start(tmp_path, {"epochs": 2, "seeds": ["0"]})
    records.append(tmp_path, end("base"))
    with pytest.raises(ValueError, match=r"another run \(epochs is 2 there and 3 here\)"):
        records.start(tmp_path, {"epochs": 3, "seeds": ["0"]})
    assert records.read(tmp_path) == [end("base")]
    records.resume(tmp_path, {"epochs": 2, "seeds": ["0"]})
    assert records.read(tmp_path) == [end("base")]
    records.start(tmp_path, {"epochs": 2, "seeds": ["0"]})
    assert records.read(tmp_path) == []


# The programs.


def train_small(run_dir: pathlib.Path, *arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "mnist5k", small_mnist)
        run_train("--batch_size=32", *arguments, f"--run_dir={run_dir}")


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A run of base and PDT, with predictions, through the program."""
    run_dir = tmp_path_factory.mktemp("run")
    train_small(
        run_dir,
        "--model=fc2",
        "--model_width=0.1",
        "--epochs=2",
        "--baseline",
        "--pdt",
        "--pdt_criteria=bounded",
        "--pdt_snapshot_every=2",
    )
    return run_dir


def test_run_writes_every_epoch_and_end(finished_run):
    rows = records.read(finished_run)
    kinds = [(type(row), row.arm) for row in rows]
    arms = "base", "bounded"
    assert kinds[:2] == [(EpochRecord, arm) for arm in arms]
    assert kinds[2:] == [(kind, arm) for arm in arms for kind in (EpochRecord, EndRecord)]
    assert ends_of(rows) == [("base", "finished", 2), ("bounded", "finished", 2)]
    for row in epochs_of(rows, "base"):
        assert (row.predicted, row.mask_ratio) == (False, None)
    for row in epochs_of(rows, "bounded"):
        diagnostics = row.mask_ratio, row.prediction_error, row.spectral_radius
        assert row.predicted
        assert all(number is not None and number > 0 for number in diagnostics)


@pytest.mark.slow
def test_controls_and_careful_arms(tmp_path):
    train_small(
        tmp_path,
        "--epochs=2",
        "--model=cnn",
        "--short_epochs=1",
        "--pdt",
        "--pdt_criteria=paper",
        "--pdt_adaptive",
        "--pdt_rollback",
        "--pdt_snapshot_every=2",
        "--pdt_switching",
    )
    rows = records.read(tmp_path)
    ends = [("short", "finished", 1), ("paper", "finished", 2), ("switching", "finished", 2)]
    assert ends_of(rows) == ends
    switching = epochs_of(rows, "switching")[-1]
    assert switching.predicted
    assert switching.mask_ratio == 0 or switching.mask_ratio > 0.5  # Dead weights do not move.


def test_a_grid_trains_the_optimizer_alone(tmp_path):
    train_small(tmp_path, "--epochs=1", "--model=fc2", "--optimizer=adamw", "--lr_grid=0.001,1e-30")
    first, second = (epochs_of(records.read(tmp_path), rate)[0] for rate in ("0.001", "1e-30"))
    assert time_to_target.low_loss(first) > time_to_target.low_loss(second)


@pytest.mark.slow
def test_arms_of_ire_and_of_ire_with_pdt(tmp_path):
    train_small(
        tmp_path,
        "--epochs=2",
        "--model=cnn",
        "--optimizer=adamw",
        "--ire_kappa=2",
        "--baseline",
        "--learning_rate=0.001",
        "--ire_learning_rate=1e-30",
        "--pdt",
        "--pdt_snapshot_every=2",
        "--ire_pdt",
    )
    rows = records.read(tmp_path)
    arms = "base", "paper", "ire", "ire+paper"
    assert [arm for arm, *_ in ends_of(rows)] == list(arms)
    # Nothing moves at such a rate.
    assert epochs_of(rows, "ire")[0].train_loss == epochs_of(rows, "ire")[1].train_loss
    assert time_to_target.low_loss(epochs_of(rows, "base")[1]) > time_to_target.low_loss(
        epochs_of(rows, "ire")[1]
    )
    assert epochs_of(rows, "ire+paper")[1].predicted


@pytest.mark.parametrize("name", cpu.STUDIES)
def test_studies_are_runs_of_the_program(name, capsys):
    """The printed command gives the run of the study, and the run has arms."""
    workload = workloads.create(MODELS["fcn"], mnist5k.load())
    run_reproduce(f"--study={name}", "--dry_run")
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[2] for line in printed] == ["experiments.train"] * len(cpu.STUDIES[name])
    for line, (run, config) in zip(printed, cpu.STUDIES[name].items(), strict=True):
        found = cli.parsed(line[3:], RunConfig, train.Runtime)
        assert found == [config, train.Runtime(run_dir=f"runs/{name}/{run}")]
        assert build_arms(config, workload)


def test_configurations_are_the_same_as_data():
    for config in (run for runs in cpu.STUDIES.values() for run in runs.values()):
        data = json.loads(json.dumps(dataclasses.asdict(config)))
        assert settings.from_data(RunConfig, data) == config
        assert settings.replaced(RunConfig(), **settings.changed(config)) == config
    assert settings.from_data(RunConfig, {}) == RunConfig()  # As before a setting was added.
    with pytest.raises(ValueError, match="there is no setting `steps`"):
        settings.from_data(RunConfig, {"steps": 1})


def test_kept_records_are_those_of_the_studies():
    for study, runs in cpu.STUDIES.items():
        for run, config in runs.items():
            folder = pages.RESULTS / study / run
            if folder.exists():
                assert records.read_run_config(folder) == config, f"{study}/{run}"


@pytest.mark.parametrize("study", cpu.STUDIES)
def test_a_study_at_its_smallest_scale_has_steps(study):
    (config,) = smoke.STUDIES[study].values()
    dataset = train.workload_of(config).dataset
    assert dataset.steps_per_epoch(config.batch_size)


def test_models_of_studies_fit_their_data(monkeypatch):
    for name, load in DATASETS.items():
        monkeypatch.setitem(DATASETS, name, functools.cache(load))
    names = "model", "model_width", "dataset", "resolution", "batch_order"
    runs = [run for study in cpu.STUDIES.values() for run in study.values()]
    for chosen in {tuple(getattr(run, name) for name in names) for run in runs}:
        config = RunConfig(**dict(zip(names, chosen, strict=True)))
        assert train.workload_of(config).dataset.num_classes


def test_reproduce_skips_what_is_done(monkeypatch, tmp_path, capsys):
    def finish(arguments):
        place = arguments[0].partition(":")[2]
        run_dir = pathlib.Path(arguments[-1].removeprefix("--run_dir="))
        records.start(run_dir, cpu.get_config(place))
        for seed in (1, 2):
            for row in (*epochs("base", [2.0], [0.5], 1.0, seed), end("base", seed)):
                records.append(run_dir, row)

    monkeypatch.setattr(reproduce, "_train", finish)
    arguments = "--study=tuning", "--runs=fcn_sgd,cnn_adamw", f"--runs_dir={tmp_path}"
    run_reproduce(*arguments)
    monkeypatch.setattr(reproduce, "_train", None)
    run_reproduce(*arguments)
    done = cpu.STUDIES["tuning"]["fcn_sgd"]
    for other, message in (
        (dataclasses.replace(done, seeds=(1,)), r"holds another run: seeds is \(1, 2\) there"),
        (dataclasses.replace(done, lr_grid=(), pdt=PDTConfig()), "pdt is None there and True here"),
    ):
        with monkeypatch.context() as patch:
            study: Any = {"fcn_sgd": other}
            patch.setitem(cpu.STUDIES, "tuning", study)
            with pytest.raises(SystemExit, match=message):
                run_reproduce("--study=tuning", f"--runs_dir={tmp_path}")
    run_reproduce(
        "--study=tuning", "--runs=fcn_sgd", f"--runs_dir={tmp_path}", "--parallelism=fsdp"
    )
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| fcn_sgd | base | 1 |") for line in lines) == 3
    for wrong, message in (
        (("--study=tuning", "--runs=x"), "`runs` must be of fcn_sgd, "),
        ((), "`study` must be given, one of tuning, "),
        ((arguments[0], "--scale=smoke", "--runs=vit_adamw"), "must be of fcn_sgd"),
        (("--study=tabel2",), "Did you mean table2?"),
        ((arguments[0], "--scale=paper"), "must be of table1, table2, .* at this scale"),
    ):
        with pytest.raises(SystemExit, match=message):
            run_reproduce(*wrong)


def test_report_needs_the_records_alone(finished_run, tmp_path, capsys):
    for name in (records.CONFIG, records.RECORDS):
        (tmp_path / name).write_text((finished_run / name).read_text())
    run_report(f"--run={tmp_path}", "--format=markdown")
    table = capsys.readouterr().out.strip()
    assert table in (tmp_path / summary.SUMMARY).read_text()
    assert table in (finished_run / summary.SUMMARY).read_text()
    assert (tmp_path / summary.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_an_arm_alone_is_bit_equal_to_the_arm_among_others_and_divergence_ends_an_arm():
    workload = workloads.create(MODELS["fc2"], small_mnist())
    base = training.Arm("base", optax.sgd(0.1))
    wild = training.Arm("wild", optax.sgd(1e20))

    together = list(
        loop.run(workload, [wild, base], seeds=[3], epochs=2, batch_size=64, num_scored=64)
    )
    alone = list(loop.run(workload, [base], seeds=[3], epochs=2, batch_size=64, num_scored=64))

    losses = [[row.train_loss for row in epochs_of(rows, "base")] for rows in (together, alone)]
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 2
    assert [row.epoch for row in epochs_of(together, "wild")] == [1]
    assert ends_of(together) == [("wild", "diverged", 1), ("base", "finished", 2)]


@pytest.mark.slow
def test_on_eight_devices_as_on_one(tmp_path):
    losses = {}
    for devices in ("one", "fsdp"):
        train_small(
            tmp_path / devices,
            "--epochs=3",
            "--pdt",
            "--pdt_criteria=",
            "--pdt_snapshot_every=4",
            "--pdt_verify",
            f"--parallelism={devices}",
        )
        rows = epochs_of(records.read(tmp_path / devices), "verified")
        losses[devices] = [row.train_loss for row in rows]
        assert rows[-1].predicted
    assert len(losses["fsdp"]) == 3
    np.testing.assert_allclose(losses["fsdp"], losses["one"], rtol=1e-4)


def test_devices_must_divide_the_batch():
    with pytest.raises(SystemExit, match="`batch_size` must be a multiple of the 8 devices"):
        run_train("--batch_size=100", "--parallelism=data")


def test_interruption_keeps_whole_rows(monkeypatch, tmp_path, capsys):
    def interrupted(*_):
        yield from HAND_MADE[:2]
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "run", interrupted)
    with pytest.raises(SystemExit) as stop:
        run_train(f"--run_dir={tmp_path}")
    assert stop.value.code == 130
    assert "Stopped. The same command goes on" in capsys.readouterr().err
    assert records.read(tmp_path) == HAND_MADE[:2]
    assert [row.status for row in summary.write(tmp_path)] == ["unfinished"]


def test_a_run_too_short_for_a_jump_says_so(monkeypatch, tmp_path, capsys):
    def interrupted(*_):
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "run", interrupted)
    for epochs, start, told in ((6, 7, True), (7, 7, False)):
        with pytest.raises(SystemExit):
            run_train(
                f"--epochs={epochs}", f"--pdt_start={start}", "--pdt_criteria=paper",
                f"--run_dir={tmp_path / str(epochs)}",
            )  # fmt: skip
        line = f"paper: no jump in {epochs} epochs, the first may come at the end of {start}."
        assert (line in capsys.readouterr().out.splitlines()) == told


def test_pictures_stand_misses_divergence_and_several_seeds(tmp_path: pathlib.Path):
    names = {"fast": "paper", "slow": "bounded", "wild": "accept_all"}
    renamed = [
        EpochRecord(**{**vars(row), "arm": names.get(row.arm, row.arm)})
        for row in HAND_MADE
        if isinstance(row, EpochRecord)
    ]
    for rows in (renamed, epochs("base", [None], [None], seconds=1.0)):
        figures.draw(rows, "title").savefig(tmp_path / "picture.png")


def test_arms_without_a_name_of_their_own_have_different_colors():
    rows = [row for rate in range(6) for row in epochs(f"0.{rate}", [2.0, 0.1], [0.5, 0.6], 1.0)]
    figure = figures.draw(rows, "title")
    lines = figure.axes[0].lines
    assert len({line.get_color() for line in lines}) == len(lines) == 6
    assert len(figure.axes) == 4, "no mask ratio without predictions"


def test_only_positive_losses_are_on_a_logarithmic_axis():
    for losses, scale in (([2.0, 0.1], "log"), ([-0.1, -0.7], "linear")):
        figure = figures.draw(epochs("base", losses, [0.5, 0.6], seconds=1.0), "title")
        assert figure.axes[0].get_yscale() == scale


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--epochs=x", "flag --epochs=x: invalid literal"),
        ("--pdt_horizn=3", "Unknown command line flag 'pdt_horizn'. Did you mean: pdt_horizon"),
        ("--config.pdt.horizn=3", "Did you mean: config.pdt.horizon"),
    ],
)
def test_a_bad_flag_is_named(argument: str, message: str):
    with pytest.raises(flags.Error, match=message):
        run_train(argument)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--model=unknown", "`model` must be of fcn, fc2, .*; got 'unknown'"),
        ("--model=fnc", "Did you mean fcn?"),
        ("--epochs=0", "`epochs` must be an integer at least 1, got 0"),
        ("--learning_rate=nan", "`learning_rate` must be a finite number at least 0, got nan"),
        ("--seeds=1,x", "`seeds` must be integers, separated by commas, got 1,x"),
        ("--seeds=1,01", "`seeds` must be one or more different, got 1, 1"),
        ("--lr_grid=0.1,0", "`lr_grid` must be a finite number above 0, got 0"),
        ("--pdt_verify --pdt_verify_gain_share=nan", "`pdt_verify_gain_share` must be .* above 0"),
        ("--pdt_criteria=papers", "`pdt_criteria` must be of paper, .*Did you mean paper?"),
        ("--pdt_criteria=", "`pdt_criteria` must be one or more"),
        ("--pdt_history=2", "`pdt_history` must be an integer at least 3, got 2"),
        ("--pdt_vary=horizon", "`pdt_vary` must be settings such as horizon=10, got horizon"),
        ("--pdt_vary=history=2", "`pdt_history` must be an integer at least 3, got 2"),
        ("--pdt_svd_rank=1.5", "`pdt_svd_rank` must be an integer or below 1, got 1.5"),
        ("--pdt_svd_rank=-2", "`pdt_svd_rank` must be a finite number at least -1"),
        ("--ire_kappa=inf", "`ire_kappa` must be a finite number"),
        ("--ire_gamma=0", "`ire_gamma` must be a finite number at most 1 and above 0, got 0.0"),
        ("--ire_masks=blunt", "`ire_masks` must be of flat"),
        ("--config=none.py", "`config` must be a Python file, got none.py, which is not there"),
        ("--config=experiments/configs/cpu.py:table2", "must name a run such as tuning/fcn_sgd"),
        ("--lr_grid=0.1 --baseline", "`lr_grid` trains the optimizer alone"),
        ("--ire_kappa=1 --batch_size=250", "must be a multiple of `ire_num_chunks`, got 250"),
        ("--ire_kappa=1 --ire_pdt", "`ire_pdt` needs `pdt`"),
        ("--ire_kappa=1 --ire_masks=flat,sharp --lr_grid=1", "tunes one of `ire_masks`"),
        ("--pdt --pdt_reset_momentum", "the `optimizer` sgd has no momentum"),
        ("--epochs=5 --short_epochs=5", "`short_epochs` must be below `epochs`, got 5"),
        ("--pdt_criteria= --pdt_verify --pdt_rollback", "`pdt_rollback` needs `pdt_criteria`"),
        ("--pdt_verify_horizons=3", "`pdt_verify_horizons` needs `pdt_verify`"),
        ("--schedule=cosine --learning_rate=0", "`learning_rate` must be above 0"),
        ("--minimum_learning_rate=1", "`minimum_learning_rate` needs a cosine"),
        ("--momentum=0.5", "`momentum` needs the `optimizer` momentum"),
        ("--controls=schedule_free --optimizer=lamb", "needs `optimizer` of sgd, momentum, adam"),
        ("--model_width=0.0001", "`model_width` must leave each layer units, got 0.0001"),
        (
            "--model=simsiam --dataset=patches640 --ire_kappa=1",
            "`ire` needs a `model` with classes, got simsiam",
        ),
        ("--dataset=cifar10", "`dataset`: cifar10 .* run, in a clone, pip install"),
        ("--warmup_epochs=3", "`warmup_epochs` needs a cosine"),
        ("--restart_epoch=3", "`restart_epoch` needs a cosine"),
        ("--batch_size=5000", "`batch_size` must not be larger than the train split, got 5000"),
        ("--batch_order=one_class --batch_size=512", "must not be larger than a class, got 512"),
        ("--run_dir=/dev/null/run", "Not a directory"),
        ("--num_processes=2", "`coordinator` must be given"),
        ("--coordinator=x:1 --process_id=1", "`coordinator` needs `num_processes`"),
        ("--coordinator=auto", "`coordinator` needs `parallelism` data or fsdp"),
        (
            "--coordinator=x:1 --num_processes=2 --process_id=2 --parallelism=data",
            "`process_id` must be below `num_processes`, got 2",
        ),
    ],
)
def test_a_bad_setting_stops_before_training(monkeypatch, arguments: str, message: str):
    monkeypatch.setattr(loop, "run", None)
    with pytest.raises(SystemExit, match=message) as stop:
        run_train(*arguments.split())
    assert "\n" not in str(stop.value)


def test_help_fits_one_screen():
    shown = cli.shown_help(RunConfig, train.Runtime)
    assert len(f"{train.__doc__}\n{shown}".splitlines()) <= 48
    keys = "model", "dataset", "optimizer", "learning_rate", "batch_size", "epochs", "[no]baseline"
    for name in (*keys, "[no]pdt", "pdt_criteria", "seeds", "run_dir", "config"):
        assert f"--{name}:" in shown


def test_a_section_begins_with_its_first_setting():
    demo = "--config=experiments/configs/fcn.py"
    lines = [demo, "--config.pdt.horizon=10", "--pdt_start=7"], ["--pdt_verify"], [demo, "--nopdt"]
    found = [cli.parsed(line, RunConfig)[0] for line in lines]
    pdt = PDTConfig(criteria=("paper", "bounded", "reference"), horizon=10, start=7)
    assert [config.pdt for config in found] == [pdt, PDTConfig(verify=True), None]
    assert found[0].baseline


def test_command_line_errors_are_short():
    command = [sys.executable, "-m", "experiments.train", "--epochs=-1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "`epochs` must be an integer at least 1, got -1." in done.stderr
    assert "Traceback" not in done.stderr


def test_report_of_a_missing_run_is_an_error(tmp_path: pathlib.Path):
    with pytest.raises(SystemExit, match=r"`run`: .*No such file"):
        run_report(f"--run={tmp_path / 'missing'}")
    with pytest.raises(SystemExit, match=r"`run`: .* does not hold a run"):
        run_report(f"--run={pages.RESULTS / 'bench'}")


def test_a_refused_command_leaves_no_run_folder(tmp_path: pathlib.Path):
    with pytest.raises(SystemExit, match="must be a multiple of the 8 devices"):
        run_train("--parallelism=data", "--batch_size=250", f"--run_dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("arm", "steps"), list(zip(toy.ARMS, (53, 25, 27, 29, 52), strict=True)))
def test_toy_steps_to_target(arm: str, steps: int):
    assert toy.descend(toy.ARMS[arm]).steps == steps


def test_toy_draws_both_figures(tmp_path: pathlib.Path, capsys):
    toy.main(toy.Settings(str(tmp_path)))
    assert "53 steps" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"trajectories.png", "losses.png"}


@pytest.mark.parametrize(
    ("run", "fewer_epochs", "less_time"),
    [
        ("fcn_sgd", 0.7, 0.6),
        ("fcn_momentum", 0.7, 0.6),
        ("fcn_adam", 0.6, 0.5),
        ("cnn_adamw", 0.35, 0.2),
        ("vit_adamw", 0.35, 0.3),
    ],
)
def test_verified_jumps_meet_their_figures(run: str, fewer_epochs: float, less_time: float):
    """Medians over seeds that nothing was tuned on; a schedule cut short ends higher."""
    scores = time_to_target.by_arm(pages.study_scores("verified")[run])
    medians = {
        name: time_to_target.spread(getattr(row, name) for row in scores["verified"]).median
        for name in ("loss_epochs", "loss_reduction")
    }
    config = cpu.STUDIES["verified"][run]
    assert medians["loss_epochs"] <= (1 - fewer_epochs) * config.epochs
    assert medians["loss_reduction"] >= less_time
    assert [row.seed for row in scores["verified"]] == list(config.seeds)
    for short, base in zip(scores["short"], scores["base"], strict=True):
        assert (short.train_loss or 0) > 3 * (base.train_loss or math.inf)


def test_what_fails_in_the_records():
    folder = pages.RESULTS / "failures"
    runs = {
        name: time_to_target.by_arm(time_to_target.score(records.read(folder / name)))
        for name in cpu.STUDIES["failures"]
    }
    assert {row.status for row in runs["non_selective"]["accept_all"]} == {"diverged"}
    assert {row.status for row in runs["every_epoch"]["paper"]} == {"diverged"}
    epochs = {arm: [row.loss_epochs for row in rows] for arm, rows in runs["switching"].items()}
    assert time_to_target.spread(epochs["switching"]) == (47, 29, 47)
    assert time_to_target.spread(epochs["paper"]) == (33, 31, 35)
    random = runs["random_acceleration"]
    assert [row.loss_epochs for row in random["random_subset"]] == [46, 46, 46]
    assert [row.loss_epochs for row in random["base"]] == [60, 60, 60]


def test_without_the_mask_no_network_gets_there():
    scores = pages.study_scores("unmasked")
    assert scores.keys() == cpu.STUDIES["unmasked"].keys()
    for run in scores.values():
        arms = time_to_target.by_arm(run)
        assert {row.loss_epochs for row in arms["accept_all"]} == {None}
        assert {row.loss_epochs for row in arms["base"]} <= {10, 14, 15, 16, 18}


def test_demo_meets_its_figures():
    """Medians over five seeds that nothing was tuned on."""
    scores = time_to_target.by_arm(pages.study_scores("controls")["fcn_sgd"])
    epochs = time_to_target.spread(s.loss_epochs for s in scores["paper"])
    accuracy = {
        arm: time_to_target.spread(s.validation_accuracy for s in scores[arm])
        for arm in ("base", "paper")
    }
    assert [s.seed for s in scores["paper"]] == [0, 100, 200, 300, 400]
    assert epochs.median is not None
    assert epochs.median <= 36
    assert accuracy["paper"].median > accuracy["base"].median - 0.005
    assert {s.status for s in scores["accept_all"]} == {"diverged"}

"""Scores, pictures and the page, of small records made by hand."""

import json
import pathlib
import re

import numpy as np
import pytest

from experiments import cli, report
from experiments.reports import figures, page, time_to_target
from experiments.runs import records
from experiments.runs.records import EndRecord, EpochRecord, Record

LAYERS = ["hidden/kernel", "hidden/bias"]


def arm(name: str, losses: list[float | None], seed: int, flops: float, event: float):
    """An arm that predicts in its second epoch."""
    rows: list[Record] = []
    for epoch, loss in enumerate(losses, 1):
        jumps = event > 0 and epoch == 2
        ratios = [0.25 * seed, 1.0] if jumps else None
        mask = 0.5 if jumps else None
        numbers = loss, 0.5, 1.0, epoch / 10
        rows.append(
            EpochRecord(
                seed, name, epoch, float(epoch), *numbers, jumps, mask, layer_mask_ratios=ratios
            )
        )
    layers = LAYERS if event else None
    rows.append(EndRecord(seed, name, "finished", len(losses), 1.0, 0.5, 0.5, flops, event, layers))
    return rows


ROWS = [
    *arm("base", [4.0, 3.0, 2.0, 1.0], 1, 100.0, 0.0),
    *arm("paper", [4.0, 1.0, 0.5, 0.4], 1, 100.0, 50.0),
    *arm("base", [4.0, 3.0, 1.0, 2.0], 2, 100.0, 0.0),
    *arm("paper", [4.0, 3.0, 2.0, None], 2, 100.0, 50.0),
]


def test_operations_to_the_target_count_predictions_until_then():
    saved = [s.flops_reduction for s in time_to_target.score(ROWS)]
    # (2 epochs and 1 prediction) of 4 epochs; a miss.
    assert saved == [0.0, pytest.approx(1 - 250 / 400), 0.0, None]


def test_operations_count_each_of_several_predictions_in_an_epoch():
    rows = [EpochRecord(1, "paper", 1, 1.0, *[0.5] * 4, True, 0.5, predictions=3)]
    end = EndRecord(1, "paper", "finished", 1, 1.0, 0.5, 0.5, 100.0, 50.0)
    assert time_to_target.flops(rows, end, 1) == 100 + 3 * 50


def test_bootstrap_interval_of_the_median():
    assert time_to_target.interval([7, 7, 7]) == (7, 7)
    assert time_to_target.interval([3, 9]) == (3, 9)
    assert time_to_target.interval([3, None]) == (3, None)
    assert time_to_target.interval([0.3, None], miss=-np.inf) == (None, 0.3)
    # Binomial: the median of 31 draws from 31 values lies in ranks 10 to 22 with 98 %.
    low, high = time_to_target.interval(list(range(1, 32)))
    assert low is not None
    assert high is not None
    assert 10 <= low <= 12
    assert 20 <= high <= 22


def test_mask_by_layer_is_the_mean_over_seeds():
    assert figures.masked_arms(ROWS) == ["paper"]
    layers, epochs, means = figures.mask_ratios(ROWS, "paper")
    assert (layers, epochs.tolist(), means.tolist()) == (LAYERS, [2], [[0.375], [1.0]])


@pytest.fixture
def results(tmp_path: pathlib.Path) -> pathlib.Path:
    names = {"model": "fcn", "dataset": "mnist5k", "optimizer": "sgd"}
    others = {"learning_rate": 0.1, "schedule": "constant", "batch_size": 8, "epochs": 4}
    for name in ("controls/fcn_sgd", "study/one"):
        folder = tmp_path / name
        records.start(folder, {**names, **others, "seeds": [1, 2]})
        for row in ROWS:
            records.append(folder, row)
    other = tmp_path / "other"
    records.start(other, {"steps": 3})
    records.append_row(other, {"loss": 1.0})
    return tmp_path


def run_report(*arguments: str) -> None:
    report.main(*cli.parsed(arguments, report.Settings))


def test_the_page_stands_alone(results: pathlib.Path):
    run_report(f"--results={results}", f"--page={results / 'page.html'}")
    text = (results / "page.html").read_text()
    assert page.find(results) == {
        "controls": {"fcn_sgd": results / "controls" / "fcn_sgd"},
        "study": {"one": results / "study" / "one"},
    }
    assert text.count("<img") == 4  # Of each run the losses and the mask by layer.
    assert text.count('src="data:image/webp;base64,') == 4
    words = re.sub('base64,[^"]*', "", text)  # A picture may spell anything.
    assert "http" not in words.replace("http-equiv", "")
    assert "39.6 %" in text
    assert ">never<small>[2, never]</small><" in text
    assert "jaxlib" in text


def test_arms_of_a_run(results: pathlib.Path, capsys):
    run_dir = results / "study" / "one"
    for row in arm("bounded", [4.0, 2.0, 1.0], 1, 100.0, 50.0):
        records.append(run_dir, row)
    run_report(f"--run={run_dir}", "--arms=bounded")
    printed = capsys.readouterr().out
    assert "bounded" in printed
    assert "paper" not in printed
    with pytest.raises(SystemExit, match=r"`run`: .* has no arm x, only base, bounded, paper"):
        run_report(f"--run={run_dir}", "--arms=x")


def test_errors_of_the_page_are_one_line(results, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SystemExit, match=r"`results`: .*empty holds no records"):
        run_report(f"--results={empty}")
    monkeypatch.setattr(page, "write", lambda _: "the page")
    with pytest.raises(SystemExit, match=r"`page`: .*Not a directory"):
        run_report(f"--results={results}", "--page=/dev/null/page.html")


def test_records_leave_out_what_does_not_apply(results: pathlib.Path):
    lines = (results / "controls" / "fcn_sgd" / records.RECORDS).read_text().splitlines()
    assert "layer_mask_ratios" not in json.loads(lines[0])
    assert records.read(results / "controls" / "fcn_sgd")[:5] == ROWS[:5]

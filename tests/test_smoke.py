"""Studies at their smallest scale, on a few of their examples; all of them with PDT_SMOKE=1."""

import dataclasses
import os
from typing import Any

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest

from experiments import records, score, studies, train
from experiments.data import DATASETS, ArrayDataset, Examples


def few(dataset: ArrayDataset) -> ArrayDataset:
    def part(split: Examples) -> Examples:
        chosen = np.random.default_rng(0).permutation(len(split.labels))[:320]
        return Examples(split.inputs[chosen], split.labels[chosen])

    splits: Any = {name: part(getattr(dataset, name)) for name in ("train", "validation", "test")}
    return dataclasses.replace(dataset, **splits)


KINDS = ("verified", "ire_tuning")


@pytest.mark.parametrize("study", studies.STUDIES if os.environ.get("PDT_SMOKE") else KINDS)
def test_a_study_runs(study, tmp_path, monkeypatch):
    for name in ("mnist5k", "patches"):
        dataset: Any = DATASETS[name]()
        monkeypatch.setitem(DATASETS, name, lambda dataset=dataset: few(dataset))
    (arguments,) = studies.at_scale(study, "smoke").values()
    with flagsaver.flagsaver():
        flags.FLAGS(["program", *arguments, "--batch_size=32", f"--run_dir={tmp_path}"])
        train.main()
    scores = score.score(records.read(tmp_path))
    assert {s.status for s in scores} == {"finished"}
    if "--pdt_verify" in arguments:
        assert "verified" in {s.arm for s in scores}

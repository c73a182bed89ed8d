"""Studies at their smallest scale, on a few of their examples; all of them with PDT_SMOKE=1."""

import dataclasses
import os
from typing import Any

import pytest
from small import few

from experiments import train
from experiments.configs import cpu, smoke
from experiments.data import DATASETS
from experiments.reports import time_to_target
from experiments.runs import records

pytestmark = pytest.mark.slow
KINDS = ("verified", "ire_tuning")


@pytest.mark.parametrize("study", cpu.STUDIES if os.environ.get("PDT_SMOKE") else KINDS)
def test_a_study_runs(study, tmp_path, monkeypatch):
    for name in ("mnist5k", "patches"):
        dataset: Any = DATASETS[name]()
        monkeypatch.setitem(DATASETS, name, lambda dataset=dataset: few(dataset, 320))
    (config,) = smoke.STUDIES[study].values()
    small = dataclasses.replace(config, batch_size=32)
    train.main(small, train.Runtime(run_dir=str(tmp_path)))
    scores = time_to_target.score(records.read(tmp_path))
    assert {s.status for s in scores if s.arm != "accept_all"} == {"finished"}
    assert {s.status for s in scores} <= {"finished", "diverged"}
    if config.pdt and config.pdt.verify:
        assert "verified" in {s.arm for s in scores}

"""The benchmark of an accelerator runs on a CPU at small size."""

import pytest

from experiments.benchmarks import gpu
from experiments.runs import records


@pytest.mark.slow
def test_every_network_and_way_of_jumping(tmp_path, capsys):
    settings = gpu.Settings(run_dir=str(tmp_path), rounds=1, scale=0.02)
    gpu.main(settings)
    rows = records.read_rows(tmp_path)
    assert [(row["network"], row["way"]) for row in rows] == [
        (network, way) for network in settings.networks for way in (gpu.ADAM, *gpu.JUMPS)
    ]
    for row in rows:
        assert 0 < row["step"] < row["epoch"]
        assert ("event" in row) == (row["way"] != gpu.ADAM)
    printed = capsys.readouterr().out
    assert "| physics |" in printed
    gpu.main(settings)
    assert records.read_rows(tmp_path) == rows

"""The notebooks run from top to bottom. As a program: run them in place and keep their outputs."""

import os
import pathlib
import tempfile

from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.slow


def execute(path):
    """Runs all cells in a kernel that finds the packages of this clone first."""
    notebook = nbformat.read(path, as_version=4)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "TF_CPP_MIN_LOG_LEVEL": "3",  # No alarm in the outputs where XLA has to wait.
    }
    with tempfile.TemporaryDirectory() as folder:  # Sockets on disk: no ports are opened.
        kernel = AsyncKernelManager(
            kernel_name="python3", transport="ipc", connection_file=f"{folder}/kernel.json"
        )
        client = NotebookClient(
            notebook, km=kernel, timeout=600, startup_timeout=300, record_timing=False
        )
        client.execute(cwd=str(path.parent), env=environment, cleanup_kc=True)
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path):
    executed = execute(path)
    pictures = [
        output
        for cell in executed.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) >= 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_and_in_order(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(
        output.output_type == "error" or output.get("name") == "stderr"
        for cell in cells
        for output in cell.outputs
    )


if __name__ == "__main__":
    for path in NOTEBOOKS:
        print(path.name, flush=True)
        nbformat.write(execute(path), path)

"""Records as TensorBoard events, one TensorBoard run for each arm and seed."""

from collections.abc import Iterable
import pathlib

from experiments.runs.records import EpochRecord, Record

FOLDER = "tensorboard"
_LABELS = ("seed", "arm", "epoch", "predicted", "layer_mask_ratios")


def write(run_dir: pathlib.Path, rows: Iterable[Record]) -> pathlib.Path:
    """Writes the numbers of each epoch, at the step of its number, into a folder of the run.

    Raises:
      ImportError: if tensorboardX is not installed.
    """
    from tensorboardX import SummaryWriter

    folder = run_dir / FOLDER
    for row in (row for row in rows if isinstance(row, EpochRecord)):
        with SummaryWriter(str(folder / f"{row.arm}_seed{row.seed}")) as writer:
            for name, value in vars(row).items():
                if name not in _LABELS and value is not None:
                    writer.add_scalar(name, value, row.epoch)
    return folder

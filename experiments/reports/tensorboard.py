"""Records as TensorBoard events, one TensorBoard run for each arm and seed."""

import dataclasses
import functools
import pathlib

from experiments.runs.records import EpochRecord, Record

FOLDER = "tensorboard"
_LABELS = ("seed", "arm", "epoch", "predicted", "layer_mask_ratios")


class Logger:
    """Writes into the folder `tensorboard` of a run.

    Raises:
      ImportError: if tensorboardX is not installed.
    """

    def __init__(self, run_dir: pathlib.Path):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "--tensorboard needs tensorboardX: pip install 'pdt-optax[tensorboard]'"
            ) from error
        self._writer = functools.cache(
            lambda arm, seed: SummaryWriter(str(run_dir / FOLDER / f"{arm}_seed{seed}"))
        )

    def log(self, record: Record) -> None:
        """Logs the numbers of an epoch at the step of its number."""
        if not isinstance(record, EpochRecord):
            self._writer(record.arm, record.seed).close()
            return
        for field in dataclasses.fields(record):
            value = getattr(record, field.name)
            if field.name not in _LABELS and value is not None:
                self._writer(record.arm, record.seed).add_scalar(field.name, value, record.epoch)

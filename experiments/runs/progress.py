"""A progress bar over the records of a run."""

from collections.abc import Iterable, Iterator, Sequence
import sys

import tqdm

from experiments.runs import devices
from experiments.runs.records import EndRecord, Record


def shown(
    records: Iterable[Record], arms: int, seeds: int, epochs: int, done: Sequence[Record] = ()
) -> Iterator[Record]:
    """Passes records on and shows the train loss of each arm and the time left.

    Args:
      records: what `loop.run` yields.
      arms: number of arms.
      seeds: number of seeds.
      epochs: number of epochs.
      done: records of before.
    """
    every = 0.5 if sys.stderr.isatty() else 10.0
    losses: dict[str, str] = {}
    spared = sum(epochs - record.epochs for record in done if isinstance(record, EndRecord))
    total = arms * seeds * epochs - spared
    before = sum(not isinstance(record, EndRecord) for record in done)
    quiet = not devices.is_first()
    with tqdm.tqdm(
        total=total, initial=before, unit="epoch", mininterval=every, disable=quiet
    ) as bar:
        for record in records:
            if isinstance(record, EndRecord):
                bar.total -= epochs - record.epochs
            else:
                losses[record.arm] = f"{record.train_loss:.3g}"
                bar.set_description(f"seed {record.seed}", refresh=False)
                bar.set_postfix(losses, refresh=False)
                bar.update()
            yield record

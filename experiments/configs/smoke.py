"""Of each study for a CPU the first run, short and with few arms: seconds, to try it."""

import dataclasses

from experiments.configs.base import PDTConfig, RunConfig, Studies, find
from experiments.configs.cpu import STUDIES as CPU


def _small(config: RunConfig) -> RunConfig:
    return dataclasses.replace(
        config,
        epochs=2,
        seeds=(1,),
        batch_size=256,
        short_epochs=min(1, config.short_epochs),
        lr_grid=config.lr_grid[:1],
        controls=config.controls[:1],
        pdt=config.pdt and _small_pdt(config.pdt),
    )


def _small_pdt(pdt: PDTConfig) -> PDTConfig:
    return dataclasses.replace(pdt, criteria=pdt.criteria[:1], vary=pdt.vary[:1], snapshot_every=2)


STUDIES: Studies = {
    study: {name: _small(config) for name, config in list(runs.items())[:1]}
    for study, runs in CPU.items()
}


def get_config(place: str) -> RunConfig:
    """The run of a study, named as `table2/sgd`."""
    return find(STUDIES, place)

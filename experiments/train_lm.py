r"""Trains one of the paper's language models, with AdamW, with IRE or with a control.

The text is a plain text file, cut by a tokenizer file. Without --recipe it is the small model of
`experiments.ire.study` on the help texts of CPython. There are no checkpoints.

  python -m experiments.train_lm --steps=40 --mask=flat
  python -m experiments.train_lm --recipe=wikitext103 --text=wiki.txt --tokenizer=tokenizer.json \
    --mask=flat
"""

import dataclasses
import pathlib
import sys

from experiments import cli
from experiments.data import text
from experiments.ire import language
from experiments.ire.masks import MASKS
from experiments.runs import records
from experiments.settings import Config, setting

CPU = "cpu"


class Settings(Config):
    """What is trained, and where the records go."""

    recipe: str = setting(CPU, "Model and settings.", of=(CPU, *language.PAPER))
    text: str | None = setting(None, "Plain text file; its last tenth is for validation.")
    tokenizer: str | None = setting(None, "tokenizer.json that cuts the text.")
    mask: str = setting("none", "none is AdamW, flat is IRE.", of=("none", *MASKS))
    steps: int | None = setting(None, "By default as in the recipe.", least=1)
    learning_rate: float | None = setting(None, "Peak; by default as in the recipe.", above=0)
    seed: int = setting(0, "Of initialisation and batches.", least=0)
    run_dir: str = setting("runs/train_lm", "Folder of the records.")

    def __post_init__(self):
        super().__post_init__()
        for name, path in (("text", self.text), ("tokenizer", self.tokenizer)):
            if self.recipe == CPU and path:
                raise ValueError(f"`{name}` must be left out: the `recipe` cpu has its own text.")
            if self.recipe != CPU and path is None:
                recipe = self.recipe
                raise ValueError(f"`{name}` must be given with {recipe}: nothing is downloaded.")


def main(config: Settings) -> None:
    """Runs the program."""
    try:
        task = _task(config)
    except ValueError as error:
        sys.exit(f"`text`: {error}")
    recipe = task.recipe
    arm = language.Mask()
    if config.mask != "none":
        arm = language.Mask(config.mask, recipe.kappa, num_chunks=recipe.num_chunks)
    if config.steps is not None and config.steps <= recipe.warmup_steps:
        sys.exit(
            f"`steps` must be above the {recipe.warmup_steps} steps of warm-up, got {config.steps}."
        )
    run_dir = cli.folder(config.run_dir)
    try:
        records.start(run_dir, dataclasses.asdict(config))
    except (OSError, ValueError) as error:
        sys.exit(f"`run_dir`: {error}")
    rate = config.learning_rate or recipe.learning_rate
    for progress in task.run(arm, rate, config.steps or recipe.steps, config.seed):
        print(f"step {progress.step}: validation loss {progress.loss:.4f} nats", flush=True)
        records.append_row(run_dir, {"step": progress.step, "validation_loss": progress.loss})


def _task(config: Settings) -> language.Task:
    if config.text is None or config.tokenizer is None:
        return language.cpu()
    numbers = text.read(pathlib.Path(config.text), pathlib.Path(config.tokenizer))
    return language.Task(language.PAPER[config.recipe], numbers)


if __name__ == "__main__":
    cli.run(main, Settings)

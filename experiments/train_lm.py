r"""Trains one of the paper's language models, with AdamW, with IRE or with a control.

The text is a plain text file, cut by a tokenizer file. Without --recipe it is the small model of
`experiments.ire.study` on the help texts of CPython. There are no checkpoints.

Example:
  python -m experiments.train_lm --lm_steps=40 --mask=flat
  python -m experiments.train_lm --recipe=wikitext103 --text=wiki.txt --tokenizer=tokenizer.json \
    --mask=flat
"""

import pathlib
import sys
from typing import Any

from absl import flags

from experiments import cli
from experiments.data import text
from experiments.ire import language
from experiments.ire.masks import MASKS
from experiments.runs import records

_RECIPE = flags.DEFINE_enum("recipe", "cpu", ["cpu", *language.PAPER], "Model and settings.")
_TEXT = flags.DEFINE_string("text", None, "Plain text file; its last tenth is for validation.")
_TOKENIZER = flags.DEFINE_string("tokenizer", None, "tokenizer.json that cuts --text.")
_MASK = flags.DEFINE_enum("mask", "none", ["none", *MASKS], "none is AdamW, flat is IRE.")
_STEPS = flags.DEFINE_integer("lm_steps", None, "By default as in the recipe.", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float(
    "lm_learning_rate", None, "Peak; by default as in the recipe.", lower_bound=0.0
)
_SEED = flags.DEFINE_integer("lm_seed", 0, "Of initialisation and batches.", lower_bound=0)
_RUN_DIR = flags.DEFINE_string("lm_run_dir", "runs/train_lm", "Folder of the records.")


def main() -> None:
    """Runs the program."""
    task = _task()
    recipe = task.recipe
    arm = language.Arm()
    if _MASK.value != "none":
        arm = language.Arm(_MASK.value, recipe.kappa, num_chunks=recipe.num_chunks)
    if _STEPS.value is not None and _STEPS.value <= recipe.warmup_steps:
        sys.exit(
            f"flag --lm_steps={_STEPS.value}: must be above the {recipe.warmup_steps} steps of "
            "warm-up."
        )
    run_dir = pathlib.Path(_RUN_DIR.value)
    try:
        records.start(run_dir, _configuration())
    except (OSError, ValueError) as error:
        sys.exit(f"flag --lm_run_dir: {error}")
    rate = _LEARNING_RATE.value or recipe.learning_rate
    for progress in task.run(arm, rate, _STEPS.value or recipe.steps, _SEED.value):
        print(f"step {progress.step}: validation loss {progress.loss:.4f} nats", flush=True)
        records.append_row(run_dir, {"step": progress.step, "validation_loss": progress.loss})


def _task() -> language.Task:
    if _RECIPE.value == "cpu":
        if _TEXT.value or _TOKENIZER.value:
            sys.exit("flag --recipe: cpu has its own text; leave out --text and --tokenizer.")
        return language.cpu()
    path, tokenizer = _path(_TEXT), _path(_TOKENIZER)
    try:
        return language.Task(language.PAPER[_RECIPE.value], text.read(path, tokenizer))
    except ValueError as error:
        sys.exit(f"flag --text: {error}")


def _path(flag: flags.FlagHolder) -> pathlib.Path:
    if flag.value is None:
        name, recipe = flag.name, _RECIPE.value
        sys.exit(f"flag --{name}: must be given with --recipe={recipe}: nothing is downloaded.")
    return pathlib.Path(flag.value)


def _configuration() -> dict[str, Any]:
    own = cli.flags_beside(_RECIPE)
    return {name: flag.value for name, flag in own.items() if name != _RUN_DIR.name}


if __name__ == "__main__":
    cli.run(main)

r"""Trains a model with an optimizer, with PDT, or with both side by side, and reports.

Example:
  python -m experiments.train --model=fcn --dataset=mnist5k --optimizer=sgd --learning_rate=0.01 \
    --baseline --pdt --pdt_criteria=paper,bounded,reference
"""

from collections.abc import Mapping, Sequence
import math
import pathlib
import sys
from typing import Any

from absl import flags
import jax.numpy as jnp
import optax

from experiments import cli, loop, progress, records, score, summary, tables, workloads
from experiments.data import DATASETS
from experiments.models import MODELS
from experiments.optimizers import OPTIMIZERS, SCHEDULES, Settings
import pdt_optax

Criteria = str | pdt_optax.Criterion
CRITERIA: Mapping[str, Criteria] = {
    "paper": "paper",
    "bounded": "bounded",
    "reference": "reference",
    # The non-selective control (Tano et al. 2020).
    "accept_all": pdt_optax.accept_all(),
}
PREDICTORS = ("dmd", "affine_dmd", "linear", "last_increment", "average")

_MODEL = flags.DEFINE_enum("model", "fcn", list(MODELS), "What is trained.")
_DATASET = flags.DEFINE_enum("dataset", "mnist5k", list(DATASETS), "What it is trained on.")
_OPTIMIZER = flags.DEFINE_enum("optimizer", "sgd", list(OPTIMIZERS), "The base optimizer.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.01, "Peak learning rate.", lower_bound=0.0)
_SCHEDULE = flags.DEFINE_enum(
    "schedule", "constant", list(SCHEDULES), "Learning rate over the run; cosine decays to zero."
)
_MOMENTUM = flags.DEFINE_float(
    "momentum", 0.9, "Coefficient of --optimizer=momentum.", lower_bound=0.0, upper_bound=1.0
)
_WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay",
    0.0,
    "Decoupled weight decay of adamw and lamb; an L2 term of the gradient for the others.",
    lower_bound=0.0,
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 256, "Examples per step; an epoch drops the remainder.", lower_bound=1
)
_EPOCHS = flags.DEFINE_integer("epochs", 60, "Passes over the train split.", lower_bound=1)
_GRID = flags.DEFINE_list(
    "grid",
    [],
    "Learning rates: instead of all else the optimizer alone is trained with each, to tune it.",
)
_SHORT_EPOCHS = flags.DEFINE_integer(
    "short_epochs",
    0,
    "Also train an arm `short`: the optimizer alone with its schedule cut to so many epochs, a "
    "control. 0 for none.",
    lower_bound=0,
)
_SEEDS = flags.DEFINE_list(
    "seeds", ["0"], "Seeds of the initialisation and of the batches, e.g. 0,100,200."
)
_RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "Folder of records, table and picture; by default named after the flags."
)
_BASELINE = flags.DEFINE_bool(
    "baseline",
    False,
    "Also train the optimizer alone, from the same initialisation on the same batches, in turn "
    "epoch by epoch, and compare. Without --pdt it is what is trained anyway.",
)
_PDT = flags.DEFINE_bool("pdt", False, "Train with Predictive Differential Training.")
_CRITERIA = flags.DEFINE_list(
    "pdt_criteria",
    ["paper"],
    f"Masks, one arm each, of {', '.join(CRITERIA)}. accept_all is the non-selective control.",
)
_HISTORY = flags.DEFINE_integer("pdt_history", 5, "Snapshots that are fitted.", lower_bound=3)
_HORIZON = flags.DEFINE_integer("pdt_horizon", 5, "Snapshots predicted ahead.", lower_bound=1)
_START = flags.DEFINE_integer(
    "pdt_start", 5, "First snapshot period that may end in a prediction.", lower_bound=1
)
_INTERVAL = flags.DEFINE_integer(
    "pdt_interval", 1, "Snapshot periods without prediction after each one.", lower_bound=0
)
_PREDICTOR = flags.DEFINE_enum(
    "pdt_predictor",
    "dmd",
    PREDICTORS,
    "How the snapshots are extrapolated; all but the first two are controls.",
)
_SVD_RANK = flags.DEFINE_string(
    "pdt_svd_rank",
    "preset",
    "Rank of the DMD: preset (that of the criterion), -1 (full), 0 (Gavish-Donoho), a positive "
    "integer, or the fraction of the energy that is kept.",
)
_SCOPE = flags.DEFINE_enum(
    "pdt_scope", "global", ["global", "leaf"], "One fit for all parameters, or one per array."
)
_HISTORY_DTYPE = flags.DEFINE_enum(
    "pdt_history_dtype",
    None,
    ["float32", "bfloat16", "float16"],
    "Type in which the increments are kept; by default that of the parameters.",
)
_SNAPSHOT_EVERY = flags.DEFINE_integer(
    "pdt_snapshot_every", 0, "Steps between snapshots; 0 stands for one epoch.", lower_bound=0
)
_ADAPTIVE = flags.DEFINE_bool(
    "pdt_adaptive", False, "Predict less far and less often after bad predictions."
)
_ROLLBACK = flags.DEFINE_bool(
    "pdt_rollback", False, "Return to before a jump if the loss rises over the epoch after it."
)
_SWITCHING = flags.DEFINE_bool(
    "pdt_switching",
    False,
    "Also train an arm `switching`, a control: at every snapshot all weights jump to the "
    "prediction if that lowers the validation loss.",
)
_VERIFY = flags.DEFINE_bool(
    "pdt_verify",
    False,
    "Also train an arm `verified`: at every snapshot the jumps to all --pdt_verify_horizons by all "
    "--pdt_verify_predictors are scored on --pdt_verify_examples training examples, and the best "
    "one is made if it gains.",
)
_VERIFY_HORIZONS = flags.DEFINE_list(
    "pdt_verify_horizons", ["2", "5", "20"], "Snapshots predicted ahead, one candidate each."
)
_VERIFY_PREDICTORS = flags.DEFINE_list(
    "pdt_verify_predictors", ["dmd", "linear"], f"Of {', '.join(PREDICTORS)}, a candidate each."
)
_VERIFY_EXAMPLES = flags.DEFINE_integer(
    "pdt_verify_examples", 512, "Training examples on which candidates are scored.", lower_bound=1
)
_VERIFY_GAIN_SHARE = flags.DEFINE_float(
    "pdt_verify_gain_share",
    0.5,
    "Of the candidates with this share of the best gain the furthest is taken; 1: the best.",
    lower_bound=0.0,
    upper_bound=1.0,
)


def _is_integers(words: Sequence[str]) -> bool:
    return all(word.isdecimal() for word in words)


def _svd_rank(text: str) -> float | None:
    if text == "preset":
        return None
    return float(text) if "." in text else int(text)


def _is_svd_rank(text: str) -> bool:
    try:
        rank = _svd_rank(text)
    except ValueError:
        return False
    return rank is None or (0 < rank < 1 if isinstance(rank, float) else rank >= -1)


def _is_rates(words: Sequence[str]) -> bool:
    try:
        return all(0 < float(word) < math.inf for word in words)
    except ValueError:
        return False


def _is_distinct(words: Sequence[str]) -> bool:
    return 0 < len(words) == len(set(words))


for number in (_LEARNING_RATE, _MOMENTUM, _WEIGHT_DECAY):
    flags.register_validator(number.name, math.isfinite, "must be a finite number.")
flags.register_validator("pdt_verify_gain_share", bool, "must be above 0.")
flags.register_validator("grid", _is_rates, "must be learning rates, separated by commas.")
flags.register_validator("seeds", _is_integers, "must be integers from 0, separated by commas.")
flags.register_validator("seeds", _is_distinct, "must be one or more different ones.")
flags.register_validator(
    "pdt_criteria", lambda names: set(names) <= set(CRITERIA), f"must be of {', '.join(CRITERIA)}."
)
flags.register_multi_flags_validator(
    ["pdt_criteria", "pdt_verify", "pdt_switching"],
    lambda flag: (
        (not flag["pdt_criteria"] and (flag["pdt_verify"] or flag["pdt_switching"]))
        or _is_distinct(flag["pdt_criteria"])
    ),
    "must be one or more different ones without --pdt_verify and --pdt_switching.",
)
flags.register_validator(
    "pdt_verify_horizons",
    lambda words: _is_integers(words) and _is_distinct(words) and "0" not in words,
    "must be different integers from 1.",
)
flags.register_validator(
    "pdt_verify_predictors",
    lambda names: _is_distinct(names) and set(names) <= set(PREDICTORS),
    f"must be different ones of {', '.join(PREDICTORS)}.",
)
flags.register_validator(
    "pdt_svd_rank", _is_svd_rank, "must be preset, an integer from -1, or a fraction such as 0.99."
)


def main() -> None:
    """Runs the program."""
    _check_pdt_flags()
    workload = workloads.create(MODELS[_MODEL.value], DATASETS[_DATASET.value]())
    arms = _arms(_steps_per_epoch(workload))
    run_dir = pathlib.Path(_RUN_DIR.value or pathlib.Path("runs", _default_name()))
    try:
        records.start(run_dir, _configuration())
    except (OSError, ValueError) as error:
        sys.exit(f"flag --run_dir: {error}")

    seeds = [int(seed) for seed in _SEEDS.value]
    print(f"Training {', '.join(arm.name for arm in arms)}: {summary.describe(_configuration())}")
    rows = loop.run(workload, arms, seeds, _EPOCHS.value, _BATCH_SIZE.value, _VERIFY_EXAMPLES.value)
    try:
        for row in progress.shown(rows, len(arms), len(seeds), _EPOCHS.value):
            records.append(run_dir, row)
    except KeyboardInterrupt:
        print(
            "Interrupted. What is done is kept, and shown by "
            f"python -m experiments.report --run={run_dir}",
            file=sys.stderr,
        )
        sys.exit(130)

    print("\n" + tables.text(summary.write(run_dir)) + "\n")
    for name in (summary.PICTURE, summary.SUMMARY, records.RECORDS):
        print(run_dir / name)


def _check_pdt_flags() -> None:
    given = [name for name, flag in _own_flags().items() if not flag.using_default_value]
    stray = [name for name in given if name.startswith("pdt_")]
    if stray and not _PDT.value:
        sys.exit(f"flag --{stray[0]}: needs --pdt.")
    if _GRID.value and (_BASELINE.value or _PDT.value or _SHORT_EPOCHS.value):
        sys.exit("flag --grid: trains the optimizer alone; leave out the flags of other arms.")
    stray = [name for name in given if name.startswith("pdt_verify_")]
    if stray and not _VERIFY.value:
        sys.exit(f"flag --{stray[0]}: needs --pdt_verify.")


def _steps_per_epoch(workload: workloads.Workload) -> int:
    steps = workload.dataset.steps_per_epoch(_BATCH_SIZE.value)
    if not steps:
        sys.exit(f"flag --batch_size={_BATCH_SIZE.value}: is larger than the train split.")
    return steps


def _arms(steps_per_epoch: int) -> list[loop.Arm]:
    if _GRID.value:
        bases = {rate: _base(float(rate), _EPOCHS.value * steps_per_epoch) for rate in _GRID.value}
        return [loop.Arm(rate, base, predicts=False) for rate, base in bases.items()]
    base = _base(_LEARNING_RATE.value, _EPOCHS.value * steps_per_epoch)
    snapshot_every = _SNAPSHOT_EVERY.value or steps_per_epoch
    arms = []
    if _BASELINE.value or not _PDT.value:
        arms.append(loop.Arm(score.BASE, base, predicts=False))
    if _SHORT_EPOCHS.value:
        short = _base(_LEARNING_RATE.value, _SHORT_EPOCHS.value * steps_per_epoch)
        arms.append(loop.Arm("short", short, predicts=False, epochs=_SHORT_EPOCHS.value))
    if _PDT.value:
        for name in _CRITERIA.value:
            pdt = _pdt(CRITERIA[name], snapshot_every)
            arms.append(loop.Arm(name, optax.chain(base, pdt), predicts=True))
    if _PDT.value and _VERIFY.value:
        pdt = _verified_pdt(snapshot_every)
        arms.append(loop.Arm("verified", optax.chain(base, pdt), predicts=True))
    if _PDT.value and _SWITCHING.value:
        chain = optax.chain(base, _switching_pdt(snapshot_every))
        arms.append(loop.Arm("switching", chain, predicts=True, scores_on="validation"))
    return arms


def _base(learning_rate: float, steps: int) -> optax.GradientTransformation:
    schedule = SCHEDULES[_SCHEDULE.value](learning_rate, steps)
    return OPTIMIZERS[_OPTIMIZER.value](Settings(schedule, _MOMENTUM.value, _WEIGHT_DECAY.value))


def _pdt(criteria: Criteria, snapshot_every: int) -> optax.GradientTransformation:
    return pdt_optax.pdt(
        snapshot_every,
        history=_HISTORY.value,
        horizon=_HORIZON.value,
        start=_START.value,
        interval=_INTERVAL.value,
        criteria=criteria,
        predictor=_PREDICTOR.value,
        svd_rank=_svd_rank(_SVD_RANK.value),
        scope=_SCOPE.value,
        history_dtype=_HISTORY_DTYPE.value and jnp.dtype(_HISTORY_DTYPE.value),
        adaptive=pdt_optax.Adaptive() if _ADAPTIVE.value else None,
        rollback=_ROLLBACK.value,
    )


def _switching_pdt(snapshot_every: int) -> optax.GradientTransformation:
    everything = pdt_optax.Verify((_HORIZON.value,), ("dmd",), pdt_optax.accept_all())
    return pdt_optax.pdt(
        snapshot_every,
        history=_HISTORY.value,
        start=_START.value,
        interval=_INTERVAL.value,
        verify=everything,
    )


def _verified_pdt(snapshot_every: int) -> optax.GradientTransformation:
    return pdt_optax.pdt(
        snapshot_every,
        history=_HISTORY.value,
        start=_START.value,
        interval=0,
        scope=_SCOPE.value,
        history_dtype=_HISTORY_DTYPE.value and jnp.dtype(_HISTORY_DTYPE.value),
        verify=pdt_optax.Verify(
            horizons=tuple(int(horizon) for horizon in _VERIFY_HORIZONS.value),
            predictors=tuple(_VERIFY_PREDICTORS.value),
            gain_share=_VERIFY_GAIN_SHARE.value,
        ),
    )


def _own_flags() -> dict[str, flags.Flag]:
    return cli.flags_beside(_MODEL)


def _configuration() -> dict[str, Any]:
    return {name: flag.value for name, flag in _own_flags().items() if name != _RUN_DIR.name}


def _default_name() -> str:
    named = (_MODEL, _DATASET, _OPTIMIZER)
    rest = [flag for flag in _own_flags().values() if flag.name not in [n.name for n in named]]
    changed = [flag.serialize().removeprefix("--") for flag in rest if flag.value != flag.default]
    return "-".join([*(flag.value for flag in named), *changed])


if __name__ == "__main__":
    cli.run(main)

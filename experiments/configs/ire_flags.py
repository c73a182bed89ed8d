"""The flags of implicit regularization enhancement, and the optimizer that they describe."""

from collections.abc import Sequence
import math
import sys

from absl import flags
import jax
import optax

from experiments.ire.masks import MASKS
from experiments.runs.workloads import Workload
import pdt_optax

KAPPA = flags.DEFINE_float(
    "ire_kappa",
    None,
    "Also train with implicit regularization enhancement: steps along flat coordinates are 1 + "
    "this times as large.",
    lower_bound=0.0,
)
_MASKS = flags.DEFINE_list(
    "ire_masks",
    ["flat"],
    f"Which coordinates, an arm each, of {', '.join(MASKS)}. All but flat are controls.",
)
LEARNING_RATE = flags.DEFINE_float(
    "ire_learning_rate",
    None,
    "Peak learning rate of the arms with IRE; by default --learning_rate.",
    lower_bound=0.0,
)
WITH_PDT = flags.DEFINE_bool(
    "ire_pdt", False, "Train each arm of PDT a second time, with IRE before it in the chain."
)
_GAMMA = flags.DEFINE_float("ire_gamma", 0.6, "Part of the coordinates that is flat.")
_UPDATE_INTERVAL = flags.DEFINE_integer(
    "ire_update_interval", 10, "Steps between two estimates of the curvature.", lower_bound=1
)
_WARMUP_STEPS = flags.DEFINE_integer(
    "ire_warmup_steps", 0, "Steps before the first estimate.", lower_bound=0
)
_NUM_CHUNKS = flags.DEFINE_integer(
    "ire_num_chunks", 16, "Parts of a batch from which the curvature is estimated.", lower_bound=1
)

flags.register_validator(
    "ire_kappa", lambda kappa: kappa is None or math.isfinite(kappa), "must be a finite number."
)
flags.register_validator("ire_gamma", lambda gamma: 0 < gamma <= 1, "must be in (0, 1].")
flags.register_validator(
    "ire_masks",
    lambda names: 0 < len(names) == len(set(names)) and set(names) <= set(MASKS),
    f"must be one or more different ones of {', '.join(MASKS)}.",
)


def check(given: Sequence[str], batch_size: int, is_grid: bool, has_pdt: bool) -> None:
    """Stops the program if the flags `given` on the command line do not fit together."""
    stray = [name for name in given if name.startswith("ire_")]
    if stray and KAPPA.value is None:
        sys.exit(f"flag --{stray[0]}: needs --ire_kappa.")
    if is_grid and len(_MASKS.value) > 1:
        sys.exit("flag --grid: tunes one of --ire_masks at a time.")
    if WITH_PDT.value and not has_pdt:
        sys.exit("flag --ire_pdt: needs --pdt.")
    chunks = _NUM_CHUNKS.value
    if KAPPA.value is not None and batch_size > chunks and batch_size % chunks:
        sys.exit(
            f"flag --batch_size={batch_size}: must be a multiple of --ire_num_chunks={chunks}."
        )


def enhanced(
    base: optax.GradientTransformation, workload: Workload
) -> dict[str, optax.GradientTransformationExtraArgs]:
    """The optimizer with each of --ire_masks, by the name of the arm."""
    _, model_state = workload.init(0)
    logits = workload.logits
    assert logits is not None
    fisher = pdt_optax.ire.sampled_label_fisher(
        lambda params, inputs: logits(params, model_state, inputs),
        jax.random.key(0),
        num_chunks=_NUM_CHUNKS.value,
    )
    return {
        "ire" if mask == "flat" else f"ire_{mask}": pdt_optax.ire.ire(
            base,
            KAPPA.value or 0.0,
            gamma=_GAMMA.value,
            update_interval=_UPDATE_INTERVAL.value,
            warmup_steps=_WARMUP_STEPS.value,
            curvature_fn=MASKS[mask](fisher),
        )
        for mask in _MASKS.value
    }


def tuned(
    base: optax.GradientTransformation, workload: Workload
) -> optax.GradientTransformationExtraArgs:
    """The optimizer with the one mask that is tuned."""
    (only,) = enhanced(base, workload).values()
    return only

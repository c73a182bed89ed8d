"""The arms: GRPO with AdamW, and what may follow it."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import optax

from experiments.post_training.trend import trend
import pdt_optax

CALL = {"": 0.0, "exact": 1 / 6, "sampled": 1 / 2}
"""What a call of each `value_fn` costs, in steps: one forward pass of 256 rows, or the three of
drawing their answers. A step draws as many, and goes forward and back once more."""
_WARMUP, _SLOWER = 10, 0.1
_RATES = (2e-4, 4e-4, 8e-4)

Make = Callable[[Any, int], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way of training.

    Attributes:
      title: in the table.
      make: from learning rate and number of steps to the optimizer.
      value: the `value_fn`: the 'exact' expected reward on fixed train rows, or the mean reward
        of answers to them 'sampled' with a fixed key; '' for none.
      rates: that are tried.
      share: of the best rate of `grpo` that is taken instead.
    """

    title: str
    make: Make
    value: str = ""
    rates: Sequence[float] = _RATES
    share: float | None = None


def adamw(rate: Any, steps: int) -> optax.GradientTransformation:
    """AdamW at a constant rate after a warm-up."""
    del steps
    return _adamw(rate, optax.warmup_constant_schedule(0.0, 1.0, _WARMUP))


def falling(rate: Any, steps: int) -> optax.GradientTransformation:
    """AdamW at a rate that falls to zero along a straight line."""
    up = optax.linear_schedule(0.0, 1.0, _WARMUP)
    down = optax.linear_schedule(1.0, 0.0, steps - _WARMUP)
    return _adamw(rate, optax.join_schedules([up, down], [_WARMUP]))


def _adamw(rate: Any, shape: optax.Schedule) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(lambda step: rate * shape(step), b2=0.95, weight_decay=0.0),
    )


def _jumps(every: int, jump: Any, base: Make = adamw, **options: Any) -> Make:
    link = pdt_optax.pdt(every, jump, **options)
    return lambda rate, steps: optax.chain(base(rate, steps), link)


_TREND = pdt_optax.Extrapolate(
    criteria=pdt_optax.criteria.accept_all(),
    horizon=8,
    history=17,
    start=17,
    interval=16,
    predictor=trend(),
)
_DMD_TOO = pdt_optax.Verify(predictors=("dmd", "linear"), start=5)
_VERIFY_DMD = _jumps(10, _DMD_TOO)
_VERIFY_TREND = _jumps(10, pdt_optax.Verify(predictors=(trend(),), start=5), scope="leaf")
_SPACED = _jumps(5, _TREND, scope="leaf")  # 85 steps between two jumps, of 40 steps each.

ARMS: Mapping[str, Arm] = {
    "grpo": Arm("GRPO", adamw, rates=(4e-4, 8e-4, 1.6e-3)),
    "falling": Arm("GRPO, rate falls to zero", falling, rates=(8e-4, 1.6e-3, 3.2e-3)),
    "dmd": Arm("`Extrapolate` every 10", _jumps(10, pdt_optax.Extrapolate())),
    "linear": Arm(
        "`Extrapolate`, `'linear'` every 10",
        _jumps(10, pdt_optax.Extrapolate(predictor="linear")),
    ),
    "trend": Arm("`Extrapolate`, trend after 85 steps", _SPACED),
    "verify": Arm("`Verify` every 10, sampled", _jumps(10, pdt_optax.Verify()), "sampled"),
    "dmd_exact": Arm("`Verify`, DMD too, every 10", _VERIFY_DMD, "exact"),
    "dmd_sampled": Arm("`Verify`, DMD too, every 10, sampled", _VERIFY_DMD, "sampled"),
    "verify_trend": Arm("`Verify`, trend every 10", _VERIFY_TREND, "exact"),
    "falling_dmd": Arm(
        "`Verify`, DMD too, every 10, sampled, rate falls to zero",
        _jumps(10, _DMD_TOO, falling),
        "sampled",
        rates=(4e-4, 8e-4, 1.6e-3),
    ),
    "slow": Arm("GRPO, a tenth of the rate", adamw, share=_SLOWER),
    "slow_trend": Arm("a tenth, trend after 85 steps", _SPACED, share=_SLOWER),
    "slow_dmd": Arm("a tenth, `Verify`, DMD too, every 10", _VERIFY_DMD, "exact", share=_SLOWER),
    "slow_dmd_sampled": Arm(
        "a tenth, `Verify`, DMD too, every 10, sampled", _VERIFY_DMD, "sampled", share=_SLOWER
    ),
}

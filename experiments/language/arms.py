"""The arms of the study: optimizers of a small language model, and what may follow them."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import optax
import optax.contrib

from experiments.language.outer import outer_nesterov
from experiments.runs.controls import Evaluated, average_of_held, latest_average
import pdt_optax

WARMUP, END = 20, 0.05
PERIODS = (10, 20, 50)
_RATES = (1e-3, 2e-3, 3e-3, 4e-3, 6e-3)
_OUTER_RATE = 0.7

Make = Callable[[Any, int], optax.GradientTransformation]


def _as_trained(state: Any, params: optax.Params) -> optax.Params:
    del state
    return params


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way of training.

    Attributes:
      title: in the table.
      make: from learning rate and number of steps to the optimizer.
      rates: that are tried.
      evaluated: from the optimizer's state and the parameters to those that are evaluated.
      scored_rows: fixed train rows whose loss is the `value_fn`; 0 for none.
      is_tuned: whether the rate is its own; else that of `adamw`.
    """

    title: str
    make: Make
    rates: Sequence[float] = _RATES
    evaluated: Evaluated = _as_trained
    scored_rows: int = 0
    is_tuned: bool = True


def _schedule(rate: Any, steps: int) -> optax.Schedule:
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, WARMUP, steps, end_value=END)
    return lambda step: rate * shape(step)


def adamw(rate: Any, steps: int) -> optax.GradientTransformation:
    """AdamW with the settings of `experiments.ire.language`."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(_schedule(rate, steps), b1=0.9, b2=0.95, weight_decay=0.1),
    )


def muon(rate: Any, steps: int) -> optax.GradientTransformation:
    """Muon on all matrices, Adam on the rest at a tenth of the rate."""
    schedule = _schedule(rate, steps)
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.contrib.muon(
            schedule, weight_decay=0.1, adam_learning_rate=lambda step: 0.1 * schedule(step)
        ),
    )


def _schedule_free(rate: Any, steps: int) -> optax.GradientTransformation:
    del steps
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.contrib.schedule_free_adamw(rate, warmup_steps=WARMUP, b2=0.95, weight_decay=0.1),
    )


def _schedule_free_evaluated(state: Any, params: optax.Params) -> optax.Params:
    return optax.contrib.schedule_free_eval_params(state[1], params)


def _with(base: Make, link: optax.GradientTransformation) -> Make:
    return lambda rate, steps: optax.chain(base(rate, steps), link)


def _verify(every: int, **fields: Any) -> Make:
    return _with(adamw, pdt_optax.pdt(every, pdt_optax.Verify(**fields)))


_ROWS = 32
_DMD_TOO = {"predictors": ("dmd", "linear")}
_MUON_RATES = (0.01, 0.02, 0.04)

ARMS: Mapping[str, Arm] = {
    "adamw": Arm("AdamW", adamw),
    "muon": Arm("Muon", muon, _MUON_RATES),
    "schedule_free": Arm(
        "schedule-free AdamW", _schedule_free, (2e-3, 4e-3, 8e-3), _schedule_free_evaluated
    ),
    "lawa": Arm(
        "AdamW, mean of its last 5 snapshots (LAWA)",
        lambda rate, steps: latest_average(adamw(rate, steps), 20),
        evaluated=average_of_held,
        is_tuned=False,
    ),
    **{
        f"{name}_{every}": Arm(
            f"{title} every {every}", _verify(every, **fields), scored_rows=_ROWS, is_tuned=False
        )
        for name, title, fields, periods in (
            ("verify", "`Verify()`", {}, PERIODS),
            ("early", "`Verify(start=5)`", {"start": 5}, PERIODS[:1]),
            ("dmd", "`Verify`, DMD too,", _DMD_TOO, PERIODS),
            ("early_dmd", "`Verify(start=5)`, DMD too,", {**_DMD_TOO, "start": 5}, PERIODS[:1]),
            ("later_dmd", "`Verify(start=25)`, DMD too,", {**_DMD_TOO, "start": 25}, PERIODS[:1]),
        )
        for every in periods
    },
    "muon_verify": Arm(
        "Muon, `Verify()` every 20",
        _with(muon, pdt_optax.pdt(20, pdt_optax.Verify())),
        _MUON_RATES,
        scored_rows=_ROWS,
    ),
    "extrapolate": Arm("`Extrapolate` every 20", _with(adamw, pdt_optax.pdt(20)), (1e-3, 2e-3)),
    "solve": Arm(
        "`Solve` every 100 on 64 rows",
        _with(adamw, pdt_optax.pdt(100, pdt_optax.Solve(history=8))),
        scored_rows=64,
        is_tuned=False,
    ),
    **{
        f"outer_{momentum:g}": Arm(
            f"AdamW, outer Nesterov {momentum:g} every 20",
            _with(adamw, outer_nesterov(20, _OUTER_RATE, momentum)),
            (1e-3, 2e-3),
        )
        for momentum in (0.6, 0.9)
    },
    "outer_muon": Arm(
        "Muon, outer Nesterov 0.6 every 20",
        _with(muon, outer_nesterov(20, _OUTER_RATE, 0.6)),
        _MUON_RATES[:2],
    ),
}

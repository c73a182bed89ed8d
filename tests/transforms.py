"""Optimizers and transformations that several modules try."""

from typing import Any

import optax

import pdt_optax

OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "nesterov": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(1e-2),
    "adamw": optax.adamw(1e-2),
    "rmsprop": optax.rmsprop(1e-2),
    "adagrad": optax.adagrad(1e-2),
    "lamb": optax.lamb(1e-2),
    "lion": optax.lion(1e-3),
    "muon": optax.contrib.muon(1e-2),
}
ACCEPT_ALL = pdt_optax.criteria.accept_all()
_OF_PDT = ("scope", "history_dtype", "exclude", "axis_name")


def way_back(*, rollback: bool = True, **options: Any) -> pdt_optax.Adaptive:
    """A scheduler that only rolls back: horizon and interval stay as they are."""
    steady = {"max_error": float("inf"), "shrink": 1.0, "grow": 1.0, "max_interval": 0}
    return pdt_optax.Adaptive(**steady | options, rollback=rollback)


def extrapolating(every: int, **options: Any) -> optax.GradientTransformationExtraArgs:
    """`pdt` along the prediction; options of either."""
    return _link(every, pdt_optax.Extrapolate, options)


def verifying(every: int, **options: Any) -> optax.GradientTransformationExtraArgs:
    """`pdt` with verified jumps, from the fifth period on; options of either."""
    return _link(every, pdt_optax.Verify, {"start": 5, **options})


def _link(every, jump, options):
    own = {name: value for name, value in options.items() if name in _OF_PDT}
    others = {name: value for name, value in options.items() if name not in _OF_PDT}
    return pdt_optax.pdt(every, jump(**others), **own)

"""Twelve tasks whose train loss is the objective, each with a reference computed by code."""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp

from experiments.science.tasks import (
    allen_cahn,
    burgers,
    circuit,
    closed_form,
    image,
    neural_ode,
    physics,
    regression,
)
from experiments.science.tasks.task import Field, Task

__all__ = ["PROBLEMS", "SIZES", "TASKS", "Field", "Task", "make"]

PROBLEMS: Mapping[str, Callable[[], physics.Problem]] = {
    "poisson": closed_form.poisson,
    "convection_20": functools.partial(closed_form.convection, 20.0),
    "convection_40": functools.partial(closed_form.convection, 40.0),
    "reaction": functools.partial(closed_form.reaction, 5.0),
    "wave": closed_form.wave,
    "burgers": burgers.problem,
    "allen_cahn": allen_cahn.problem,
}
_NETWORKS = {
    "poisson": (32, 2),
    "convection_20": (50, 3),
    "convection_40": (50, 3),
    "reaction": (50, 3),
    "wave": (50, 3),
    "burgers": (20, 8),
    "allen_cahn": (50, 4),
}
"""Width and depth of each physics network where no size is asked for."""


def _physics(name: str, width: int = 0, depth: int = 0, dtype: Any = jnp.float32) -> Task:
    own_width, own_depth = _NETWORKS[name]
    return physics.make(name, PROBLEMS[name](), width or own_width, depth or own_depth, dtype)


TASKS: Mapping[str, Callable[..., Task]] = {
    **{name: functools.partial(_physics, name) for name in PROBLEMS},
    "image": image.task,
    "regression_tables": regression.tables,
    "regression_synthetic": regression.synthetic,
    "neural_ode": neural_ode.task,
    "circuit": circuit.task,
}
SIZES: Mapping[str, Mapping[str, int]] = {
    "own": {},
    "small": {"width": 32, "depth": 2},
    "medium": {"width": 224, "depth": 3},
    "large": {"width": 706, "depth": 3},
}
"""About 10^3, 10^5 and 10^6 weights; `own` is the task's own network."""


def make(name: str, size: str = "own", dtype: str = "float32", **settings: Any) -> Task:
    """Builds a task.

    Args:
      name: one of `TASKS`.
      size: one of `SIZES`; the circuit has only its own.
      dtype: `float32` or `float64`; the latter needs `jax_enable_x64`.
      settings: for the task's function, before those of the size.

    Raises:
      ValueError: for a combination that does not exist.
    """
    if dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise ValueError("dtype float64 needs jax_enable_x64.")
    if name == "circuit" and size != "own":
        raise ValueError(f"the circuit has no size but `own`, got {size!r}.")
    return TASKS[name](**{**SIZES[size], **settings}, dtype=jnp.dtype(dtype))

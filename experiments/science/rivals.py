"""What is compared: a name, and how to train.

All rates fall along half a cosine to a hundredth. Rivals with a rate take it from the same grid.
"""

from collections.abc import Mapping
import dataclasses

import jax
import optax

from experiments.science import preconditioned
from experiments.science.levenberg_marquardt import LevenbergMarquardt
from experiments.science.methods import Method, Optax, Rate
from experiments.science.tasks import Task
import pdt_optax

RATES = (1e-3, 3e-3, 1e-2, 3e-2)
"""The grid of learning rates; the largest entry of a vector's update is about the rate."""
LARGEST_JACOBIAN = 200_000_000
"""Numbers in a dense Jacobian, 0.8 GB in float32; a step needs about four times that."""


@dataclasses.dataclass(frozen=True)
class Rival:
    """A way to train.

    Attributes:
      label: name in tables and pictures.
      stages: pairs of a share of the seconds and a method; the shares sum to 1, or less.
      has_rate: whether there is a learning rate to choose.
      rate_of: the rival whose rate it takes; None for its own.
      needs_residuals: whether the loss must be a sum of squares.
      needs_fixed: whether the points must be the same at every step.
      has_jacobian: whether it holds a dense Jacobian, which has to fit into memory.
    """

    label: str
    stages: tuple[tuple[float, Method], ...]
    has_rate: bool = True
    rate_of: str | None = None
    needs_residuals: bool = False
    needs_fixed: bool = False
    has_jacobian: bool = False

    def fits(self, task: Task, fresh: bool = False) -> bool:
        """Whether it can train a task, on fresh points at each step or not."""
        if (self.needs_residuals and task.residuals is None) or (self.needs_fixed and fresh):
            return False
        return not self.has_jacobian or task.weights() * _residuals(task) <= LARGEST_JACOBIAN


def _residuals(task: Task) -> int:
    """Number of residuals on the fixed points."""
    if task.residuals is None:
        return 0
    params = jax.eval_shape(task.init, jax.random.key(0))
    return sum(
        leaf.size for leaf in jax.tree.leaves(jax.eval_shape(task.residuals, params, task.points))
    )


def _alone(method: Method) -> tuple[tuple[float, Method], ...]:
    return ((1.0, method),)


def _jumping(snapshot_every: int, jump, base=optax.adam, **options) -> Method:
    def make(rate: Rate) -> optax.GradientTransformation:
        return optax.chain(base(rate), pdt_optax.pdt(snapshot_every, jump, **options))

    return Optax(make, takes_residuals=jump.takes_residuals)


def _variant(label: str, snapshot_every: int, jump=pdt_optax.Solve(), **options) -> Rival:  # noqa: B008
    method = _jumping(snapshot_every, jump, **options)
    return Rival(f"Solve {label}", _alone(method), rate_of="solve")


def _forgetting(rate: Rate) -> optax.GradientTransformation:
    return pdt_optax.reset_momentum(optax.adam(rate), pdt_optax.pdt(25, pdt_optax.Solve()))


ADAM = Optax(optax.adam)
L_BFGS = Optax(lambda rate: optax.lbfgs(), is_line_search=True)
SOLVE = _jumping(25, pdt_optax.Solve())

RIVALS: Mapping[str, Rival] = {
    "adam": Rival("Adam", _alone(ADAM)),
    "lbfgs": Rival("L-BFGS", _alone(L_BFGS), has_rate=False, needs_fixed=True),
    "adam_lbfgs": Rival("Adam, then L-BFGS", ((0.5, ADAM), (0.5, L_BFGS)), needs_fixed=True),
    "muon": Rival("Muon", _alone(Optax(optax.contrib.muon))),
    "shampoo": Rival("Shampoo", _alone(Optax(preconditioned.shampoo))),
    "kron": Rival("PSGD Kron", _alone(Optax(preconditioned.kron))),
    "lm": Rival(
        "Levenberg-Marquardt",
        _alone(LevenbergMarquardt()),
        has_rate=False,
        needs_residuals=True,
        needs_fixed=True,
        has_jacobian=True,
    ),
    "extrapolate": Rival("Adam with Extrapolate", _alone(_jumping(10, pdt_optax.Extrapolate()))),
    "verify": Rival("Adam with Verify", _alone(_jumping(10, pdt_optax.Verify()))),
    "solve": Rival("Adam with Solve", _alone(SOLVE)),
    "muon_solve": Rival(
        "Muon with Solve",
        _alone(_jumping(25, pdt_optax.Solve(), optax.contrib.muon)),
    ),
}
THIRD = "solve_third"
VARIANTS: Mapping[str, Rival] = {
    THIRD: Rival("Solve in a third of the time", ((1 / 3, SOLVE),), rate_of="solve"),
    "solve_every_10": _variant("every 10 steps", 10),
    "solve_every_50": _variant("every 50 steps", 50),
    "solve_history_4": _variant("in 4 directions", 25, pdt_optax.Solve(history=4)),
    "solve_history_16": _variant("in 16 directions", 25, pdt_optax.Solve(history=16)),
    "solve_history_32": _variant("in 32 directions", 25, pdt_optax.Solve(history=32)),
    "solve_leaf": _variant("in 8 directions a leaf", 25, scope="leaf"),
    "solve_leaf_4": _variant(
        "in 4 directions a leaf", 25, pdt_optax.Solve(history=4), scope="leaf"
    ),
    "solve_bfloat16": _variant("with a bfloat16 history", 25, history_dtype="bfloat16"),
    "solve_int8": _variant("with an int8 history", 25, history_dtype="int8"),
    "solve_reset": Rival(
        "Solve, momentum reset", _alone(Optax(_forgetting, takes_residuals=True)), rate_of="solve"
    ),
}
"""Other settings of solved jumps, to see what each is worth."""
ALL: Mapping[str, Rival] = {**RIVALS, **VARIANTS}

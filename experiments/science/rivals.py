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
      stages: pairs of a share of the seconds and a method; the shares sum to 1.
      has_rate: whether there is a learning rate to choose.
      needs_residuals: whether the loss must be a sum of squares.
      needs_fixed: whether the points must be the same at every step.
      has_jacobian: whether it holds a dense Jacobian, which has to fit into memory.
    """

    label: str
    stages: tuple[tuple[float, Method], ...]
    has_rate: bool = True
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


def _jumping(snapshot_every: int, jump) -> tuple[tuple[float, Method], ...]:
    def make(rate: Rate) -> optax.GradientTransformation:
        return optax.chain(optax.adam(rate), pdt_optax.pdt(snapshot_every, jump))

    return _alone(Optax(make))


ADAM = Optax(optax.adam)
L_BFGS = Optax(lambda rate: optax.lbfgs(), is_line_search=True)

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
    "extrapolate": Rival("Adam with Extrapolate", _jumping(10, pdt_optax.Extrapolate())),
    "verify": Rival("Adam with Verify", _jumping(10, pdt_optax.Verify())),
    "solve": Rival("Adam with Solve", _jumping(25, pdt_optax.Solve())),
}

"""What a task is: weights to start from, points to fit, a loss and an error."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = Any
Points = Any
Residuals = Callable[[Params, Points], Any]


@dataclasses.dataclass(frozen=True)
class Field:
    """A solution that can be drawn.

    Attributes:
      predict: from the weights to a (rows, columns) array; row 0 is the lowest.
      reference: (rows, columns) float64, what it should be.
      extent: (left, right, bottom, top) of the axes.
      labels: names of the horizontal and the vertical axis.
      is_photograph: whether it is one.
    """

    predict: Callable[[Params], jax.Array]
    reference: np.ndarray
    extent: tuple[float, float, float, float]
    labels: tuple[str, str]
    is_photograph: bool = False


@dataclasses.dataclass(frozen=True)
class Task:
    """An optimization problem with a figure of merit beside its loss.

    Attributes:
      name: its name.
      init: from a key to weights, a tree of arrays.
      points: the fixed set of points: collocation points, or all train examples.
      sample: from a key to fresh collocation points, or to a mini-batch.
      value: from weights and points to the loss, a scalar. Where there are residuals it is the sum
        of their squares.
      error: from weights to a scalar at least 0: relative L2 error against the reference, or
        held-out error; as `error_name` says.
      error_name: what `error` is.
      residuals: from weights and points to a tree of arrays, or None where the loss is not a sum of
        squares.
      field: what to draw, if there is something.
    """

    name: str
    init: Callable[[jax.Array], Params]
    points: Points
    sample: Callable[[jax.Array], Points]
    value: Callable[[Params, Points], jax.Array]
    error: Callable[[Params], jax.Array]
    error_name: str
    residuals: Residuals | None = None
    field: Field | None = None

    def weights(self) -> int:
        """Number of weights."""
        shapes = jax.tree.leaves(jax.eval_shape(self.init, jax.random.key(0)))
        return sum(shape.size for shape in shapes)


def sum_of_squares(residuals: Residuals) -> Callable[[Params, Points], jax.Array]:
    """The loss of residuals."""

    def value(params: Params, points: Points) -> jax.Array:
        squares = [jnp.sum(jnp.square(r)) for r in jax.tree.leaves(residuals(params, points))]
        return jnp.sum(jnp.stack(squares))

    return value


def mean_residual(residual: jax.Array, weight: float = 1.0) -> jax.Array:
    """Scales residuals so that the sum of their squares is `weight` times their mean square."""
    return residual * np.sqrt(weight / residual.size).astype(residual.dtype)


def mini_batch(examples: Any, size: int) -> Callable[[jax.Array], Any]:
    """Draws `size` rows of a tree of arrays, the same of each, without a row twice."""
    (rows,) = {len(leaf) for leaf in jax.tree.leaves(examples)}

    def sample(key: jax.Array) -> Any:
        chosen = jax.random.choice(key, rows, (min(size, rows),), replace=False)
        return jax.tree.map(lambda leaf: leaf[chosen], examples)

    return sample


def fit(
    name: str,
    init: Callable[[jax.Array], Params],
    misfit: Callable[[Params, Any], jax.Array],
    rows: Mapping[str, jax.Array],
    targets: str,
    train: int,
    batch_size: int,
    penalty: Callable[[Params], Any] | None = None,
) -> Task:
    """The task of fitting the first rows; the error is relative to the others.

    Args:
      name: of the task.
      init: from a key to weights.
      misfit: from weights and rows to what is missed of the targets.
      rows: inputs and targets, a row an example.
      targets: the name of the latter.
      train: how many rows are fitted.
      batch_size: rows of a mini-batch.
      penalty: from weights to further residuals.
    """
    points = {name: leaf[:train] for name, leaf in rows.items()}
    tests = {name: leaf[train:] for name, leaf in rows.items()}

    def residuals(params: Params, points: Points) -> Any:
        missed = mean_residual(misfit(params, points))
        return missed if penalty is None else {"fit": missed, "decay": penalty(params)}

    return Task(
        name=name,
        init=init,
        points=points,
        sample=mini_batch(points, batch_size),
        value=sum_of_squares(residuals),
        error=lambda params: (
            jnp.linalg.norm(misfit(params, tests)) / jnp.linalg.norm(tests[targets])
        ),
        error_name="held-out relative L2 error",
        residuals=residuals,
    )

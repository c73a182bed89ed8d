"""Physics-informed networks: an equation in two variables and its conditions become a task.

Raissi, Perdikaris and Karniadakis (2019), "Physics-informed neural networks".
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.science.tasks import networks
from experiments.science.tasks.task import Field, Task, mean_residual, sum_of_squares

Function = Callable[[jax.Array], jax.Array]
"""From points (n, 2) to values (n,)."""

GRID = 101
"""Points along each axis of the grid on which errors are taken."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """An equation on a rectangle.

    Attributes:
      residual: from any function of the points and the points to the residual of each group of
        points, a mapping of (n,) arrays.
      low: lower ends of the two variables.
      high: upper ends.
      numbers: how many points of each group are drawn.
      solution: from (n,) and (m,) coordinates along the two axes to the reference, (m, n) float64.
      labels: names of the two variables.
      weights: weight of each group's mean squared residual in the loss; 1 where none is given.
    """

    residual: Callable[[Function, Mapping[str, jax.Array]], dict[str, jax.Array]]
    low: tuple[float, float]
    high: tuple[float, float]
    numbers: Mapping[str, int]
    solution: Callable[[np.ndarray, np.ndarray], np.ndarray]
    labels: tuple[str, str] = ("x", "t")
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def grid(self, size: int = GRID) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates along both axes, ends included."""
        first, second = (np.linspace(*ends, size) for ends in zip(self.low, self.high, strict=True))
        return first, second

    def sample(self, key: jax.Array, dtype: jnp.dtype) -> dict[str, jax.Array]:
        """Uniform points of each group, (n, 2) each.

        A group's name says where it lies: `interior`, or an edge: `left`, `right`, `bottom`, `top`.
        `right` has the second coordinates of `left`, `top` the first ones of `bottom`.
        """
        low, high = (jnp.asarray(end, dtype)[None] for end in (self.low, self.high))
        pairs = {"right": "left", "top": "bottom"}
        order = ["interior", "left", "bottom"]
        points = {}
        for name, number in self.numbers.items():
            own = jax.random.fold_in(key, order.index(pairs.get(name, name)))
            points[name] = low + jax.random.uniform(own, (number, 2), dtype) * (high - low)
        for name, (axis, value) in self._edges().items():
            if name in points:
                points[name] = points[name].at[:, axis].set(value)
        return points

    def fixed(self, dtype: jnp.dtype) -> dict[str, jax.Array]:
        """The points of every step: random ones inside, evenly spaced ones along the edges.

        Gaps between random points of an edge would leave solutions that none of them sees.
        """
        points = self.sample(jax.random.key(0), dtype)
        for name, (axis, _) in self._edges().items():
            if name in points:
                along = jnp.linspace(self.low[1 - axis], self.high[1 - axis], len(points[name]))
                points[name] = points[name].at[:, 1 - axis].set(along.astype(dtype))
        return points

    def _edges(self) -> dict[str, tuple[int, float]]:
        """Of each edge the coordinate that is the same along it, and its value."""
        (left, bottom), (right, top) = self.low, self.high
        return {"left": (0, left), "right": (0, right), "bottom": (1, bottom), "top": (1, top)}

    def scaled(self, u: Function, points: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Residuals whose sum of squares is the weighted sum of the groups' mean squares."""
        return {
            name: mean_residual(r, self.weights.get(name, 1.0))
            for name, r in self.residual(u, points).items()
        }


def value_and_slope(u: Function, points: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Value and first derivative along an axis, (n,) each."""
    return jax.jvp(u, (points,), (_direction(points, axis),))


def slope(u: Function, points: jax.Array, axis: int) -> jax.Array:
    """First derivative along an axis, (n,)."""
    return value_and_slope(u, points, axis)[1]


def derivatives(u: Function, points: jax.Array, axis: int) -> tuple[jax.Array, ...]:
    """Value, first and second derivative along an axis, (n,) each, forward over forward."""
    first = functools.partial(value_and_slope, u, axis=axis)
    (value, along), (_, twice) = jax.jvp(first, (points,), (_direction(points, axis),))
    return value, along, twice


def _direction(points: jax.Array, axis: int) -> jax.Array:
    return jnp.zeros_like(points).at[:, axis].set(1)


def make(name: str, problem: Problem, width: int, depth: int, dtype: jnp.dtype) -> Task:
    """The task of fitting a tanh network to a problem."""
    widths = networks.sizes(2, width, depth, 1)
    first, second = problem.grid()
    reference = problem.solution(first, second)
    grid = jnp.asarray(np.stack(np.meshgrid(first, second), -1).reshape(-1, 2), dtype)
    wanted = jnp.asarray(reference, dtype)
    norm = float(np.linalg.norm(reference))

    def function(params: networks.Layers) -> Function:
        return lambda points: networks.perceptron(params, points)[:, 0]

    def residuals(params: networks.Layers, points: Mapping[str, jax.Array]):
        return problem.scaled(function(params), points)

    def predict(params: networks.Layers) -> jax.Array:
        return function(params)(grid).reshape(wanted.shape)

    return Task(
        name=name,
        init=functools.partial(networks.init_perceptron, widths=widths, dtype=dtype),
        points=problem.fixed(dtype),
        sample=lambda key: problem.sample(key, dtype),
        value=sum_of_squares(residuals),
        error=lambda params: jnp.linalg.norm(predict(params) - wanted) / norm,
        error_name="relative L2 error",
        residuals=residuals,
        field=Field(
            predict=predict,
            reference=reference,
            extent=(problem.low[0], problem.high[0], problem.low[1], problem.high[1]),
            labels=problem.labels,
        ),
    )

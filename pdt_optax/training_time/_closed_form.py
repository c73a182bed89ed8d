"""Full-batch gradient descent on a squared error, in closed form."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import numpy as np
import optax

from pdt_optax._checks import is_number
from pdt_optax.training_time._kernel import EmpiricalKernel
from pdt_optax.training_time._settings import SGD

_POWERS = 30  # Steps that take as long as the powers of one.


@dataclasses.dataclass(frozen=True, eq=False)
class MSECurve:
    r"""The loss :math:`\frac{c}{2} \|r_t\|^2` at any step.

    Made by :func:`pdt_optax.training_time.mse_curve`.

    Attributes:
      optimizer: whose steps are taken.
      scale: ``c``.
      curvatures: ``c`` times the eigenvalues of the kernel, ``(NC,)`` float64.
      initial: residual in the eigenvectors, ``(NC,)`` float64.
      origin: the residual that the linearised network has at zero weights, the same.
    """

    optimizer: SGD
    scale: float
    curvatures: np.ndarray
    initial: np.ndarray
    origin: np.ndarray

    def __call__(self, steps: Any) -> np.ndarray:
        """Losses after these numbers of steps, float64 of the same shape.

        Raises:
          ValueError: if they are not integers of at least 0.
        """
        steps = np.asarray(steps)
        if not np.issubdtype(steps.dtype, np.integer) or (steps < 0).any():
            raise ValueError(f"`steps` must be integers of at least 0, got {steps!r}.")
        if not steps.size:
            return np.zeros(steps.shape)
        times, places = np.unique(steps, return_inverse=True)
        are_few = len(times) * _POWERS < times[-1]
        solves = self.optimizer.constant_rate and are_few
        residuals = (self._closed_form if solves else self._iterated)(times)
        with np.errstate(over="ignore", invalid="ignore"):
            losses = np.array([0.5 * self.scale * np.sum(r**2) for r in residuals])
        return losses[places].reshape(steps.shape)

    def asymptote(self, *, null_space: bool) -> float:
        """Loss after infinitely many steps of a stable constant learning rate.

        Args:
          null_space: whether to count the modes that the kernel does not move.
        """
        o, x = self.optimizer, self.curvatures
        moved = x > 1e-12 * x.max()
        residual = self._limit() if o.weight_decay else np.where(moved, 0.0, self.initial)
        return 0.5 * self.scale * float(np.sum(residual[moved | null_space] ** 2))

    def _limit(self) -> np.ndarray:
        o, x = self.optimizer, self.curvatures
        if not o.weight_decay:
            return np.zeros_like(x)
        pull = x / (1 - o.momentum) if o.decoupled else x
        return o.weight_decay * self.origin / (pull + o.weight_decay)

    def _step(self, a: np.ndarray, v: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
        o = self.optimizer
        decay = o.weight_decay * (a - self.origin)
        gradient = self.curvatures * a + (0.0 if o.decoupled else decay)
        v = gradient + o.momentum * v
        update = gradient + o.momentum * v if o.nesterov else v
        return a - rate * (update + (decay if o.decoupled else 0.0)), v

    def _iterated(self, times: np.ndarray) -> Iterator[np.ndarray]:
        a, v, done = self.initial, np.zeros_like(self.initial), 0
        rates = self.optimizer.rates(max(int(times[-1]), 1))
        for time in times:
            for rate in rates[done:time]:
                a, v = self._step(a, v, rate)
            done = time
            yield a

    def _closed_form(self, times: np.ndarray) -> Iterator[np.ndarray]:
        r"""Solves :math:`d_{t+1} = s d_t - p d_{t-1}`, the deviation from the limit.

        With the roots :math:`z_\pm` of :math:`z^2 - s z + p`,
        :math:`d_t = d_1 U_t - p d_0 U_{t-1}`,
        :math:`U_t = (z_+^t - z_-^t) / (z_+ - z_-)`.
        """
        o, rate = self.optimizer, float(self.optimizer.rates(1)[0])
        beta = rate * o.weight_decay if o.decoupled else 0.0
        x = rate * (self.curvatures + (0.0 if o.decoupled else o.weight_decay))
        m = o.momentum
        trace = 1 + m - x - beta - m * x * o.nesterov
        product = m * (1 - beta - x * o.nesterov)
        root = np.sqrt(trace**2 - 4 * product + 0j)
        large = (trace + np.where(trace < 0, -root, root)) / 2
        ratio = np.divide(product, large**2, out=np.zeros_like(large), where=large != 0)

        def u(t: int) -> np.ndarray:
            return (large ** (t - 1) * _geometric_sum(ratio, t)).real if t else np.zeros_like(x)

        limit = self._limit()
        first = self._step(self.initial, np.zeros_like(x), rate)[0] - limit
        before = product * (self.initial - limit)
        for t in map(int, times):
            yield first * u(t) - before * u(t - 1) + limit if t else self.initial


def mse_curve(
    kernel: EmpiricalKernel,
    residual: Any,
    *,
    learning_rate: float | optax.Schedule,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    origin: Any = None,
    scale: float | None = None,
) -> MSECurve:
    r"""Loss curve of full-batch gradient descent on a squared error.

    In the eigenvectors of the kernel the residual :math:`r = f - y` falls apart into scalar
    recurrences. Gradient descent gives

    .. math::
      L_t = \frac{c}{2} \sum_k (1 - \eta c \lambda_k)^{2t} a_k^2, \qquad a = U^\top r_0,

    and momentum and weight decay second-order recurrences, solved by their roots where few
    steps are asked for. Many steps, and a learning-rate schedule, are iterated.

    Args:
      kernel: of the network at its initial parameters.
      residual: outputs less targets, ``(N, C)``.
      learning_rate: constant, or a schedule.
      momentum: as in :func:`optax.sgd`, in [0, 1).
      nesterov: as in :func:`optax.sgd`.
      weight_decay: factor of the weights that is added to the gradient:
        ``optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(...))``.
      decoupled: adds it to the update instead, before the learning rate multiplies it.
      origin: with `weight_decay`, the change of the outputs along the initial weights,
        ``(N, C)``: :math:`J w_0`. None, or zeros, decays toward the initial weights.
      scale: ``c`` of the loss :math:`\frac{c}{2} \|r\|^2`; by default :math:`1/N`: the mean
        over the examples of half the squared distance. ``jnp.mean(optax.l2_loss(f, y))`` is
        :math:`1/NC` and ``jnp.mean(optax.squared_error(f, y))`` :math:`2/NC`.

    Returns:
      A function from numbers of steps to losses.

    Raises:
      ValueError: for an argument out of range or a residual that does not fit the kernel.

    Examples:
      >>> import numpy as np
      >>> import pdt_optax
      >>> kernel = pdt_optax.training_time.EmpiricalKernel(np.array([[2.]]))
      >>> curve = pdt_optax.training_time.mse_curve(kernel, np.array([[1.]]), learning_rate=0.25)
      >>> print(curve([0, 1, 2]))
      [0.5     0.125   0.03125]

    References:
      Zancato et al., `Predicting Training Time Without Training
      <https://arxiv.org/abs/2008.12478>`_, 2020
    """
    optimizer = SGD(learning_rate, momentum, nesterov, weight_decay, decoupled)
    residual = np.asarray(residual, np.float64)
    origin = np.zeros_like(residual) if origin is None else np.asarray(origin, np.float64)
    check_fit(kernel, residual, "residual")
    check_fit(kernel, origin, "origin")
    if scale is None:
        scale = 1 / len(residual)
    if not is_number(scale) or not scale > 0:
        raise ValueError(f"`scale` must be positive, got {scale!r}.")
    eigenvalues, initial, zero_weights = kernel.modes(residual, residual - origin)
    return MSECurve(optimizer, scale, scale * eigenvalues, initial, zero_weights)


def check_fit(kernel: EmpiricalKernel, values: np.ndarray, name: str) -> None:
    """Raises unless the kernel acts on these values."""
    shape = kernel.matrix.shape
    expected = {4: shape[:2], 3: (shape[-1], shape[0])}.get(len(shape))
    fits = values.ndim == 2 and (values.shape == expected if expected else len(values) == shape[0])
    if not fits:
        raise ValueError(
            f"`{name}` must be (N, C) as the kernel of shape {shape}, got {values.shape}."
        )


def _geometric_sum(ratio: np.ndarray, count: int) -> np.ndarray:
    """``1 + ratio + .. + ratio^(count - 1)``, also near ``ratio = 1``; at most 1 in modulus."""
    near = np.abs(ratio - 1) < 0.5
    log = np.log(np.where(near, ratio, 1))
    below = np.where(log == 0, 1, np.expm1(log))
    series = np.where(log == 0, count, np.expm1(count * log) / below)
    return np.where(near, series, (1 - ratio**count) / np.where(near, 1, 1 - ratio))

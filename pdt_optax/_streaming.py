"""Streaming DMD: a history of a few directions, however many snapshots were seen.

In place of the increments the state holds orthonormal directions that span the
most of them. What was seen is kept in their coordinates, as pairs of successive
increments, compressed to as many as there are directions.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pdt_optax import _basis, _stream
from pdt_optax._checks import as_int, is_number
from pdt_optax._dmd import Gram
from pdt_optax._history import History
from pdt_optax._layout import Layout
from pdt_optax._stream import Stream
from pdt_optax._sums import AxisName
from pdt_optax.predictors import DMD, Predictor


@dataclasses.dataclass(frozen=True)
class Streaming:
    r"""A history of `rank` directions that has seen all snapshots.

    Dynamic Mode Decomposition one snapshot at a time. With the increments
    :math:`\delta_j = s_{j+1} - s_j` of the snapshots it fits the linear map
    :math:`\delta_{j+1} = K \delta_j` by least squares to all increments so far,
    those of :math:`a` periods ago with weight :math:`f^a`, within the `rank`
    directions of most energy :math:`\sum_j f^{t-j} \|q^\top \delta_j\|^2`:

    .. math::
      K = Y X^+, \qquad D_k = \sum_{i=1}^k K^i \delta_{last}.

    This is the DMD of the increments (:func:`pdt_optax.predictors.affine_dmd`) without a limit
    to what is fitted: the same numbers if `forgetting` is 1 and the increments span
    at most `rank` directions. It is used as the `history` of :class:`pdt_optax.Extrapolate`
    or :class:`pdt_optax.Verify`, holds ``rank + 1`` arrays for each parameter, and makes
    predictions from three snapshots on. Predictors are ``'dmd'`` or
    :func:`pdt_optax.predictors.dmd`, ``'linear'`` (along the mean increment, with the same
    weights) and ``'last_increment'``.

    Attributes:
      rank: directions kept, at least 1.
      forgetting: the weight :math:`f` in (0, 1]; 1 forgets nothing.

    Raises:
      ValueError: for an argument out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import pdt_optax
      >>> loss = lambda params: jnp.sum(jnp.array([1., 10.]) * params**2)
      >>> history = pdt_optax.Streaming(rank=2)
      >>> link = pdt_optax.pdt(1, pdt_optax.Extrapolate(history=history))
      >>> tx = optax.chain(optax.sgd(0.01), link)
      >>> params = jnp.array([1., 1.])
      >>> state = tx.init(params)
      >>> @jax.jit
      ... def step(params, state):
      ...   updates, state = tx.update(jax.grad(loss)(params), state, params)
      ...   return optax.apply_updates(params, updates), state
      >>> for _ in range(5):
      ...   params, state = step(params, state)
      >>> print(pdt_optax.metrics(state).eigenvalues.real.round(3))  # 1 - 0.02, 1 - 0.2.
      [[0.98 0.8 ]]

    References:
      Hemati, Williams, Rowley, `Dynamic mode decomposition for large and streaming
      datasets <https://arxiv.org/abs/1406.7187>`_, 2014

      Zhang et al., `Online dynamic mode decomposition for time-varying systems
      <https://arxiv.org/abs/1707.02876>`_, 2019
    """

    rank: int = 2
    forgetting: float = 0.8

    def __post_init__(self):
        object.__setattr__(self, "rank", as_int("rank", self.rank, 1))
        if not is_number(self.forgetting) or not 0 < self.forgetting <= 1:
            raise ValueError(f"`forgetting` must be in (0, 1], got {self.forgetting!r}.")
        object.__setattr__(self, "forgetting", float(self.forgetting))

    @property
    def least_snapshots(self) -> int:
        """How many have to be seen for a prediction: a pair of increments."""
        return 3

    @property
    def places(self) -> int:
        """Arrays for each parameter beside the newest snapshot."""
        return self.rank

    def resolve(self, predictor: str | Predictor, svd_rank: int | float) -> Predictor:
        """The predictor of that name on a :class:`StreamGram`; rank 0 stands for no truncation."""
        if predictor == "linear":
            return _stream.linear
        if predictor == "last_increment":
            return _stream.last_increment
        if predictor == "dmd":
            return _stream.StreamingDMD(svd_rank or -1, exact=True, affine=True)
        if isinstance(predictor, DMD) and not predictor.affine and predictor.svd_rank != 0:
            return _stream.StreamingDMD(predictor.svd_rank, predictor.exact, affine=True)
        raise ValueError(
            "`predictor` must be 'dmd', 'linear', 'last_increment', or what "
            "pdt_optax.predictors.dmd(...) returns for a rank other than 0, where `history` is a "
            "pdt_optax.Streaming; "
            f"got {predictor!r}."
        )

    def nothing_seen(self, num_groups: int, dtype: Any) -> Stream:
        """What the state holds beside the directions, for so many groups of leaves."""
        r = self.rank
        shapes = (r, r), (r, r), (r,), (r,), ()
        return Stream(*(jnp.zeros((num_groups, *shape), dtype) for shape in shapes))

    def oldest(self, history: History) -> jax.Array:
        """The directions are in no order of time."""
        return jnp.zeros_like(history.snapshots_taken)

    def push(
        self,
        history: History,
        layout: Layout,
        newest: list[jax.Array],
        groups: tuple[list[int], int],
        axis_name: AxisName,
    ) -> History:
        """Takes in a snapshot, in blocks.

        The increment to it joins the directions. Of the ``r + 1`` the ``r`` with the most
        energy are kept, made orthogonal by their own inner products, which are measured
        anew each time. In a group where something is not finite all stays as it is, but
        that the next increment does not follow the last one.
        """
        held, ids = history.stored(layout), layout.ids(groups[0])
        columns = [
            _basis.extended(part.column()[:-1], _basis.difference(new, part.newest))
            for part, new in zip(held, newest, strict=True)
        ]
        products = _basis.gram(columns, ids, groups[1], axis_name)
        sizes = _basis.group_sizes(layout, groups, newest, axis_name)
        gram = Gram(products, jnp.asarray(sizes, products.dtype))
        with jax.default_matmul_precision("highest"):
            advance = functools.partial(_stream.advance, forgetting=self.forgetting)
            combinations, finite, stream = jax.vmap(advance)(gram, history.stream)
        turned = []
        for part, column, group, new in zip(held, columns, ids, newest, strict=True):
            is_finite = _basis.of_group(finite, group)
            column = _basis.extended(column[:-1], jnp.where(is_finite, column[-1], 0))
            directions = _basis.combinations(combinations.swapaxes(1, 2), column, group)
            for k, direction in enumerate(directions):
                part = part.write(k, direction)
            turned.append(part.with_newest(new))
        return history.with_stored(layout, turned)._replace(
            snapshots_taken=optax.safe_increment(history.snapshots_taken), stream=stream
        )

    def replace_newest(self, history: History, layout: Layout, newest: list[jax.Array]) -> History:
        """Replaces the newest snapshot by `newest`; what was seen remains."""
        turned = [
            part.with_newest(new) for part, new in zip(history.stored(layout), newest, strict=True)
        ]
        held = history.with_stored(layout, turned)
        return held._replace(stream=history.stream.without_last())

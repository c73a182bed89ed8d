"""The end of a snapshot period as pure functions, without optax's protocol and without a clock."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pdt_optax import _basis, _checks, _event, _history, _leaves, _sums
from pdt_optax._event import Event
from pdt_optax._history import History
from pdt_optax._landing import Limits
from pdt_optax._layout import Layout
from pdt_optax._ring import Ring
from pdt_optax._run_if import run_if
from pdt_optax._state import PDTState, PredictionReport
from pdt_optax._streaming import Streaming


class Core:
    """History, event and landing for parameters of one structure.

    Leaves are those of the parameters that take part; they may be
    :class:`jax.ShapeDtypeStruct` as long as no method but `init` is called.
    """

    def __init__(
        self,
        kind: Ring | Streaming,
        params: Any,
        scope: Any,
        history_dtype: Any,
        exclude: Any,
        axis_name: _sums.AxisName,
    ):
        _leaves.check_real(params)
        self.kind, self.axis_name = kind, axis_name
        # Of a NumPy array jax may know another dtype.
        params = jax.tree.map(lambda leaf: leaf if _is_known(leaf) else jnp.asarray(leaf), params)
        self._params, self._history_dtype = params, history_dtype
        self._left_out = _leaves.booleans("exclude", exclude, params)
        # Rows would join what the axes divide and what they do not.
        self.layout = Layout(params, self._left_out, joins=axis_name is None)
        self.groups = _leaves.groups(scope, params, self.layout.floats)

    @functools.cached_property
    def leaves(self) -> list[Any]:
        """The parameters that take part."""
        return self.layout.floats.select(jax.tree.leaves(self._params))

    def init(self, damping: float, has_dmd: bool) -> tuple[History, PredictionReport]:
        """The history that holds the parameters, and the report of no prediction.

        No array is empty, even of no leaves: orbax does not save those.
        """
        dtype, groups = _leaves.compute_dtype(*self.leaves), max(1, self.groups[1])
        seen, places = self.kind.nothing_seen(groups, dtype), self.kind.places
        history = _history.init(self.layout, self._params, places, self._history_dtype, seen)
        return history, PredictionReport.empty(
            groups, places if has_dmd else 0, max(1, len(self.layout)), dtype, damping
        )

    def arrive(self, updates: list[jax.Array]) -> list[jax.Array]:
        """The leaves after their updates."""
        return list(map(_leaves.apply_update, self.leaves, updates))

    def foreign_changes(self, state: PDTState) -> jax.Array:
        """Counts one more if the parameters are not the snapshot that was kept just before.

        All that takes part is compared, leaf by leaf, in the first step of a period.
        """

        def count(count):
            blocks, stored = [], state.history.stored(self.layout)
            for new, held in zip(self.layout.blocks(self.leaves), stored, strict=True):
                apart = jnp.abs(_basis.difference(new, held.newest))
                rounding = 2 * float(jnp.finfo(new.dtype).eps) * jnp.abs(held.newest)
                blocks.append([apart, rounding.astype(apart.dtype)])
            apart, rounding = _sums.by_leaf(self.layout, blocks, self.axis_name).T
            return jnp.where((apart > rounding).any(), optax.safe_increment(count), count)

        return run_if(state.pdt_count == 0, count, state.foreign_changes)

    def push(self, history: History, newest: list[jax.Array]) -> History:
        """The history with these leaves as its newest snapshot."""
        blocks = self.layout.blocks(newest)
        return self.kind.push(history, self.layout, blocks, self.groups, self.axis_name)

    def back_to(
        self, leaves: list[jax.Array], updates: list[jax.Array], history: History
    ) -> tuple[list[jax.Array], History]:
        """Updates that lead to `leaves`, which take the place of the newest snapshot."""
        back = zip(leaves, self.leaves, updates, strict=True)
        updates = [(to - at).astype(update.dtype) for to, at, update in back]
        newest = self.layout.blocks(self.arrive(updates))
        return updates, self.kind.replace_newest(history, self.layout, newest)

    def fit(
        self,
        history: History,
        updates: list[jax.Array],
        report: PredictionReport,
        number: jax.Array,
        limits: Limits | None,
    ) -> Event:
        """The event that the optimizer's updates at the end of a period make."""
        return _event.fit(
            self.layout,
            history,
            self.kind.oldest(history),
            self.leaves,
            updates,
            self.groups,
            number=number,
            trust=report.trust,
            limits=limits,
            axis_name=self.axis_name,
        )

    def value_fn(self, value_fn: Callable[[Any], Any], updates: Any) -> Callable[..., jax.Array]:
        """From updates of the leaves to the loss after them, in compute precision.

        Args:
          value_fn: the user's, of parameters.
          updates: the optimizer's, a tree like the parameters: of what takes no part.
        """
        dtype = _leaves.compute_dtype(*self.leaves)

        def value(leaves: list[jax.Array]) -> jax.Array:
            params = self.params_after(leaves, updates)
            found = _checks.scalar("value_fn", value_fn(params), dtype)
            _sums.check_same("value_fn", found, self.leaves, self.axis_name)
            return found

        return value

    def params_after(self, leaves: list[jax.Array], updates: Any) -> Any:
        """The parameters after these updates of the leaves, and the optimizer's of the others."""

        def alone(param, update, is_out):
            moves = is_out and _leaves.is_float(param)
            return _leaves.apply_update(param, update) if moves else param

        others = jax.tree.map(alone, self._params, updates, self._left_out)
        return self.layout.floats.replace(others, self.arrive(leaves))


def _is_known(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct | jax.Array)

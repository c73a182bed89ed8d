"""The span of the last increments and of the optimizer's own move."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from pdt_optax import _basis, _leaves, _sums
from pdt_optax._basis import Column
from pdt_optax._event import Event

_MOST_MOVES = 64
"""The longest jump, in lengths of the optimizer's own move."""


@dataclasses.dataclass(frozen=True)
class Span:
    """Where an event may land: from where the optimizer arrives, along a few directions.

    Amplitudes are those of the ``h - 1`` increments, in the order of the ring, and of the
    optimizer's move, ``(G, h)``.

    Attributes:
      event: the event.
    """

    event: Event

    @property
    def _directions(self) -> list[Column]:
        event = self.event
        return [_basis.extended(event.column(n)[:-1], move) for n, move in enumerate(event.moves)]

    def updates(self, amplitudes: jax.Array) -> list[jax.Array]:
        """Updates of the leaves that lead there; a coordinate that would not be finite stays."""
        event, moved = self.event, []
        for weight, update, jump in zip(
            event.weights, event.updates, self._jumps(amplitudes), strict=True
        ):
            jump = update + jump.astype(update.dtype)
            is_safe = jnp.isfinite(_leaves.apply_update(weight, jump))
            moved.append(jnp.where(is_safe, jump, update))
        return event.layout.leaves(moved, event.proposed)

    def share(self, amplitudes: jax.Array, radius: jax.Array) -> jax.Array:
        """The share of a jump that is not too long, one of all of it.

        Args:
          amplitudes: of a jump.
          radius: the longest one, in units of the root mean square of the directions' lengths.
            Directions of length zero, such as increments that are not yet there, do not count.
            Jumps are directions of the next ones, so without a second limit, `_MOST_MOVES`, they
            would grow where the optimizer itself has come to rest.
        """
        event, sums = self.event, []
        for directions, jump, group in zip(
            self._directions, self._jumps(amplitudes), event.ids, strict=True
        ):
            squares = [jnp.where(jnp.isfinite(row), row * row, 0) for row in (jump, *directions)]
            sums.append(_sums.of_block(squares, group))
        squares = _sums.by_group(sums, event.ids, event.num_groups, event.axis_name).sum(axis=0)
        length, lengths = squares[0], squares[1:]
        number = jnp.maximum((lengths != 0).sum(dtype=lengths.dtype), 1)
        most = jnp.minimum(radius**2 * lengths.sum() / number, _MOST_MOVES**2 * lengths[-1])
        is_long = length > most
        return jnp.where(is_long, jnp.sqrt(most / jnp.where(is_long, length, 1)), 1)

    def _jumps(self, amplitudes: jax.Array) -> list[jax.Array]:
        combinations = functools.partial(_basis.combinations, amplitudes[:, None])
        return [
            combinations(directions, group)[0]
            for directions, group in zip(self._directions, self.event.ids, strict=True)
        ]

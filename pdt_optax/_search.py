"""Where a line search along predicted paths stands."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pdt_optax._event import Event
from pdt_optax._leaves import compute_dtype


class Search(NamedTuple):
    """Where the line search stands: the updates made last, and the gains of all candidates."""

    updates: list[jax.Array]
    accepted: jax.Array
    own: jax.Array
    gains: jax.Array
    candidate: jax.Array
    goes_on: jax.Array
    calls: jax.Array

    @classmethod
    def start(cls, event: Event, count: int) -> "Search":
        """For so many candidates; one that is not scored gains nothing."""
        dtype = compute_dtype(*event.moves)
        return cls(
            updates=event.proposed,
            accepted=jnp.zeros(len(event.layout), jnp.float32),
            own=jnp.zeros([], dtype),
            gains=jnp.zeros(count, dtype),
            candidate=jnp.full([], -1, jnp.int32),
            goes_on=jnp.zeros([], bool),
            calls=jnp.zeros([], jnp.int32),
        )

    def scored(self, loss: jax.Array, number: jax.Array, gain_share: float) -> "Search":
        """Notes the loss of a turn; the last one has no place among the gains."""
        own = jnp.where(number == 0, loss, self.own)
        counts = jnp.isfinite(loss) & ~jnp.isnan(own)
        gain = jnp.where(counts, own - jnp.where(counts, loss, 0), 0)
        gains = jnp.where(jnp.arange(1, len(self.gains) + 1) == number, gain, self.gains)
        goes_on = (gain > 0) & (gain >= gain_share * gains.max())
        return self._replace(own=own, gains=gains, goes_on=goes_on, calls=self.calls + 1)

    def taken(self, horizons: jax.Array, gain_share: float) -> jax.Array:
        """The furthest of the good candidates, of two as far the better; -1 if there is none."""
        good = (self.gains > 0) & (self.gains >= gain_share * self.gains.max())
        furthest = jnp.where(good, horizons, 0).max()
        good &= horizons == furthest
        number = len(self.gains)
        is_best = good & (self.gains == jnp.where(good, self.gains, 0).max())
        taken = jnp.where(is_best, jnp.arange(number), number).min()
        return jnp.where(taken < number, taken, -1).astype(jnp.int32)

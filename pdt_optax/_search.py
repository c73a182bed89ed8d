"""Where a line search along predicted paths stands."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pdt_optax._event import Event


class Search(NamedTuple):
    """Where the line search stands: the updates made last, and the losses of all turns."""

    updates: list[jax.Array]
    accepted: jax.Array
    losses: jax.Array
    candidate: jax.Array
    goes_on: jax.Array
    calls: jax.Array

    @classmethod
    def start(cls, event: Event, count: int) -> "Search":
        """For so many candidates; what is not scored is NaN."""
        return cls(
            updates=event.proposed,
            accepted=jnp.zeros(len(event.layout), jnp.float32),
            losses=jnp.full(count + 3, jnp.nan, jnp.float32),
            candidate=jnp.full([], -1, jnp.int32),
            goes_on=jnp.zeros([], bool),
            calls=jnp.zeros([], jnp.int32),
        )

    @property
    def gains(self) -> jax.Array:
        """Of the candidates; zero where there is none, or no number."""
        own, losses = self.losses[0], self.losses[1:-2]
        counts = jnp.isfinite(losses) & ~jnp.isnan(own)
        return jnp.where(counts, own - jnp.where(counts, losses, 0), 0)

    def scored(
        self, loss: jax.Array, number: jax.Array, gain_share: float, is_scored: jax.Array
    ) -> "Search":
        """Notes the loss of a turn."""
        is_this = jnp.arange(len(self.losses)) == number
        search = self._replace(losses=jnp.where(is_this, loss, self.losses))
        gains, own = search.gains, is_this[1:-2]
        gain = jnp.where(own, gains, 0).sum()
        goes_on = (gain > 0) & (gain >= gain_share * gains.max())
        return search._replace(goes_on=goes_on, calls=self.calls + is_scored)

    def taken(self, horizons: jax.Array, gain_share: float) -> jax.Array:
        """The furthest of the good candidates, of two as far the better; -1 if there is none."""
        gains = self.gains
        good = (gains > 0) & (gains >= gain_share * gains.max())
        furthest = jnp.where(good, horizons, 0).max()
        good &= horizons == furthest
        number = len(gains)
        is_best = good & (gains == jnp.where(good, gains, 0).max())
        taken = jnp.where(is_best, jnp.arange(number), number).min()
        return jnp.where(taken < number, taken, -1).astype(jnp.int32)

    def confirmed(self, proposed: list[jax.Array]) -> "Search":
        """Only what gains as much from the middle of the optimizer's move."""
        before, after = self.losses[-2], self.losses[-1]
        is_so = (self.candidate >= 0) & jnp.isfinite(after)
        is_so &= before - after >= self.gains[self.candidate]
        pairs = zip(self.updates, proposed, strict=True)
        return self._replace(
            updates=[jnp.where(is_so, new, own) for new, own in pairs],
            accepted=jnp.where(is_so, self.accepted, 0),
            candidate=jnp.where(is_so, self.candidate, -1),
        )

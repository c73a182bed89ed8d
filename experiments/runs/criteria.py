"""Registry of the criteria of a run: the published masks, their halves, and controls."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

import pdt_optax
from pdt_optax.criteria import Criterion, Proposal


def random_like(criteria: str, axis_name: str | tuple[str, ...] = ()) -> Criterion:
    """Of each array of a proposal as many coordinates, at random, as `criteria` accepts.

    Not element-wise: it counts. Under `jax.shard_map` it needs the mesh axes that divide the
    parameters, counts over all devices, and draws anew on each.
    """
    criterion = pdt_optax.criteria.all_of(criteria)

    def random(proposal: Proposal) -> jax.Array:
        moves = proposal.move != 0
        counts = jnp.sum(criterion(proposal) & moves), jnp.sum(moves)
        accepted, moved = jax.lax.psum(counts, axis_name)
        key = jax.random.fold_in(jax.random.key(0), proposal.event)
        key = jax.random.fold_in(key, proposal.leaf)
        if axis_name:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        ratio = accepted / jnp.maximum(moved, 1)
        return jax.random.bernoulli(key, ratio, proposal.move.shape)

    return random


def _random_subset(proposal: Proposal) -> jax.Array:
    """As many as the paper accelerates at random, wherever they lead."""
    return pdt_optax.criteria.random_mask(0.18, jax.random.key(0))(proposal)


CRITERIA: Mapping[str, str | Criterion] = {
    "paper": "paper",
    "bounded": "bounded",
    "reference": "reference",
    # The two halves of `paper`, and of `reference`.
    "magnitude": pdt_optax.criteria.magnitude_bounds(lower=lambda horizon: horizon),
    "sign": pdt_optax.criteria.path_sign(),
    "reference_magnitude": pdt_optax.criteria.magnitude_bounds(1.0, lambda horizon: horizon + 1.0),
    "reference_sign": pdt_optax.criteria.final_sign(),
    # Controls: a random mask of the ratio of `paper`, one of a fixed ratio, and none (Tano et al.
    # 2020).
    "random": random_like("paper"),
    "random_subset": _random_subset,
    "accept_all": pdt_optax.criteria.accept_all(),
}

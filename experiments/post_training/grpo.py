"""Group relative policy optimization (Shao et al. 2024): advantages and loss."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.post_training import policy, sums

PROMPTS, GROUP = 32, 8  # Prompts a step, answers to each.
_CLIP, _EPSILON = 0.2, 1e-4


def advantages(rewards: jax.Array) -> jax.Array:
    """Rewards relative to their group, in its standard deviations.

    Args:
      rewards: (prompts, answers to each).

    Returns:
      An array like `rewards`; zero where all answers to a prompt earn the same.
    """
    centred = rewards - rewards.mean(1, keepdims=True)
    return centred / (rewards.std(1, keepdims=True) + _EPSILON)


def surrogate(now: jax.Array, then: jax.Array, gain: jax.Array, clip: float = _CLIP) -> jax.Array:
    """The clipped loss: minus the mean of ratio times advantage over all digits.

    Args:
      now: (n, digits) log-probabilities of the answers.
      then: those when they were drawn.
      gain: (n,) advantages.
      clip: how far the ratio counts from one.
    """
    ratio = jnp.exp(now - then)
    gain = gain[:, None]
    return -jnp.minimum(ratio * gain, jnp.clip(ratio, 1 - clip, 1 + clip) * gain).mean()


def gradient(params: Any, solved: jax.Array, key: jax.Array) -> Any:
    """That of the loss on answers drawn now, so that every ratio is one.

    Args:
      params: of the policy.
      solved: (prompts, LENGTH) rows with their right answers.
      key: of the draws.
    """
    solved = jnp.repeat(solved, GROUP, 0)
    drawn = policy.sample(params, solved, key)
    gain = advantages(sums.exact_match(drawn, solved).reshape(-1, GROUP)).ravel()

    def loss(params: Any) -> jax.Array:
        now = policy.log_probabilities(params, drawn)
        return surrogate(now, jax.lax.stop_gradient(now), gain)

    return jax.grad(loss)(params)

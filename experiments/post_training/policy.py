"""The policy: a small decoder as functions of its parameters."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.models import llama
from experiments.models.llama import Size
from experiments.post_training.sums import ALPHABET, LENGTH, PROMPT, exact_match

SIZE = Size(len(ALPHABET), width=48, heads=4, layers=2, hidden=128)


def init(seed: int) -> Any:
    """The initial parameters of a seed."""
    return llama.init(SIZE, seed)


def answer_logits(params: Any, rows: jax.Array) -> jax.Array:
    """Of the digits of the answer, each after the ones before it, (n, digits, letters)."""
    return llama.apply(SIZE, params, rows[:, :-1])[:, PROMPT - 1 :]


def log_probabilities(params: Any, rows: jax.Array) -> jax.Array:
    """Of the digits of the answers in (n, LENGTH) rows, (n, digits)."""
    found = jax.nn.log_softmax(answer_logits(params, rows))
    return jnp.take_along_axis(found, rows[:, PROMPT:, None], -1)[..., 0]


def expected_reward(params: Any, solved: jax.Array) -> jax.Array:
    """Mean probability that a sampled answer is right.

    There is one right answer and its length is known, so this is what sampling tends to, exactly.
    """
    return jnp.exp(log_probabilities(params, solved).sum(-1)).mean()


def greedy_reward(params: Any, solved: jax.Array) -> jax.Array:
    """Share of the rows whose likeliest digits, one after the other, are the right answer.

    A row is right only if each digit is the likeliest one after the right ones before it.
    """
    found = jnp.argmax(answer_logits(params, solved), -1)
    return exact_match(solved.at[:, PROMPT:].set(found), solved).mean()


def sample(params: Any, prompts: jax.Array, key: jax.Array) -> jax.Array:
    """Draws answers at temperature 1.

    Args:
      params: of the decoder.
      prompts: (n, LENGTH) rows; their answers are not read.
      key: of the draws.

    Returns:
      (n, LENGTH) rows.
    """

    def digit(rows: jax.Array, drawn: Any) -> tuple[jax.Array, None]:
        place, key = drawn
        logits = llama.apply(SIZE, params, rows[:, :-1])[:, place - 1]
        return rows.at[:, place].set(jax.random.categorical(key, logits)), None

    places = jnp.arange(PROMPT, LENGTH)
    blank = prompts.at[:, PROMPT:].set(0)
    return jax.lax.scan(digit, blank, (places, jax.random.split(key, len(places))))[0]

"""The task: sums of two numbers of two digits, rows of characters such as `47+85=132`."""

from collections.abc import Iterable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

ALPHABET = "0123456789+="
PROMPT, LENGTH = len("47+85="), len("47+85=132")
_HELD_OUT = 1000


class Problems(NamedTuple):
    """All sums with their answers, (.., LENGTH) int32.

    Attributes:
      train: rows that are pretrained on, and whose answers are rewarded.
      held_out: rows that are evaluated.
    """

    train: np.ndarray
    held_out: np.ndarray


def encode(texts: Iterable[str]) -> np.ndarray:
    """Tokens of texts of one length, (.., length) int32."""
    return np.array([[ALPHABET.index(letter) for letter in text] for text in texts], np.int32)


def decode(row: Iterable[int]) -> str:
    """The text of tokens."""
    return "".join(ALPHABET[token] for token in row)


@functools.cache
def problems() -> Problems:
    """The ten thousand sums, a thousand of them held out: the same for all seeds."""
    rows = encode(f"{a:02}+{b:02}={a + b:03}" for a in range(100) for b in range(100))
    rows = np.random.default_rng(0).permutation(rows)
    return Problems(rows[_HELD_OUT:], rows[:_HELD_OUT])


def exact_match(rows: jax.Array, solved: jax.Array) -> jax.Array:
    """The reward: 1 where the answer is right in all digits, else 0.

    Args:
      rows: (n, LENGTH) prompts with the answers of a policy.
      solved: (n, LENGTH) the same prompts with the right ones.

    Returns:
      (n,) float32.
    """
    return (rows[:, PROMPT:] == solved[:, PROMPT:]).all(-1).astype(jnp.float32)

"""A decoder in the style of Llama (Touvron et al. 2023), and the sizes of the IRE paper."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Size:
    """Size of a decoder.

    Attributes:
      vocabulary: number of tokens.
      width: of the residual stream.
      heads: attention heads; they divide the width.
      layers: blocks.
      hidden: width of the gated layer.
    """

    vocabulary: int
    width: int
    heads: int
    layers: int
    hidden: int


# Width, heads and layers of the three models of Wang et al. (2024). Vocabulary and hidden width are
# not published; these give the published numbers of parameters.
SIZES: Mapping[str, Size] = {
    "60m": Size(vocabulary=32000, width=410, heads=10, layers=16, hidden=1152),
    "119m": Size(vocabulary=50257, width=768, heads=12, layers=6, hidden=2048),
    "229m": Size(vocabulary=50257, width=768, heads=12, layers=16, hidden=3072),
}

_INIT = nnx.initializers.normal(0.02)


def rotate(x: jax.Array) -> jax.Array:
    """Rotary position embedding (Su et al. 2021).

    Turns entry `i` of the first half of a head against entry `i` of the second by the position
    times a frequency. An odd last entry stays.

    Args:
      x: (batch, length, heads, head width) queries or keys.

    Returns:
      An array like `x`.
    """
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-jnp.arange(half) / half)
    angles = jnp.arange(x.shape[1])[:, None] * frequencies[None]
    sin, cos = (f(angles)[None, :, None].astype(x.dtype) for f in (jnp.sin, jnp.cos))
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = (first * cos - second * sin, second * cos + first * sin, rest)
    return jnp.concatenate(turned, axis=-1)


class Attention(nnx.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, size: Size, *, rngs: nnx.Rngs):
        self.heads = size.heads
        self.query, self.key, self.value, self.out = nnx.List(
            _linear(size.width, size.width, rngs) for _ in range(4)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, length, width) to the same shape."""
        query, key, value = (
            layer(x).reshape(*x.shape[:2], self.heads, -1)
            for layer in (self.query, self.key, self.value)
        )
        mixed = jax.nn.dot_product_attention(rotate(query), rotate(key), value, is_causal=True)
        return self.out(mixed.reshape(x.shape))


class Block(nnx.Module):
    """Attention and a SwiGLU layer (Shazeer 2020), each after an RMSNorm."""

    def __init__(self, size: Size, *, rngs: nnx.Rngs):
        self.attention_norm = nnx.RMSNorm(size.width, rngs=rngs)
        self.attention = Attention(size, rngs=rngs)
        self.gated_norm = nnx.RMSNorm(size.width, rngs=rngs)
        self.gate = _linear(size.width, size.hidden, rngs)
        self.up = _linear(size.width, size.hidden, rngs)
        self.down = _linear(size.hidden, size.width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, length, width) to the same shape."""
        x = x + self.attention(self.attention_norm(x))
        normed = self.gated_norm(x)
        return x + self.down(nnx.silu(self.gate(normed)) * self.up(normed))


class Llama(nnx.Module):
    """Token embedding, blocks, a last RMSNorm and a linear layer of its own to the logits."""

    def __init__(self, size: Size, *, rngs: nnx.Rngs):
        self.embed = nnx.Embed(size.vocabulary, size.width, embedding_init=_INIT, rngs=rngs)
        self.blocks = nnx.List(Block(size, rngs=rngs) for _ in range(size.layers))
        self.norm = nnx.RMSNorm(size.width, rngs=rngs)
        self.logits = _linear(size.width, size.vocabulary, rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps (batch, length) tokens to (batch, length, vocabulary) logits of the next ones."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.logits(self.norm(x))


def init(size: Size, seed: int) -> Any:
    """The initial parameters of a seed, a tree of arrays."""
    return nnx.to_pure_dict(nnx.state(Llama(size, rngs=nnx.Rngs(seed))))


def apply(size: Size, params: Any, tokens: jax.Array) -> jax.Array:
    """The module as a function of its parameters."""
    return nnx.merge(_graph(size), params)(tokens)


@functools.cache
def _graph(size: Size) -> Any:
    return nnx.graphdef(nnx.eval_shape(lambda: Llama(size, rngs=nnx.Rngs(0))))


def _linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, use_bias=False, kernel_init=_INIT, rngs=rngs)

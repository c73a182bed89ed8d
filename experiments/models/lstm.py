"""Text classifier: an embedding, four layers of long short-term memory, a linear layer."""

import itertools

from flax import nnx
import jax
import jax.numpy as jnp

from experiments.data.words import VOCABULARY

EMBEDDING = 128
UNITS = 512
LAYERS = 4
DROPOUT = 0.3


class LSTM(nnx.Module):
    """Classifies by the last layer's output at the last word; one bias per gate."""

    def __init__(
        self, text_shape: tuple[int, ...], num_classes: int, *, width: float = 1.0, rngs: nnx.Rngs
    ):
        if len(text_shape) != 1:
            raise ValueError(f"`text_shape` must be (length,), got {text_shape}.")
        sizes = (round(width * EMBEDDING), *[round(width * UNITS)] * LAYERS)
        self.embed = nnx.Embed(VOCABULARY, sizes[0], rngs=rngs)
        self.layers = nnx.List(
            nnx.RNN(nnx.OptimizedLSTMCell(fan_in, fan_out, rngs=rngs))
            for fan_in, fan_out in itertools.pairwise(sizes)
        )
        self.dropouts = nnx.List(nnx.Dropout(DROPOUT, rngs=rngs) for _ in self.layers)
        self.logits = nnx.Linear(sizes[-1], num_classes, rngs=rngs)

    def __call__(self, texts: jax.Array) -> jax.Array:
        """Maps (n, length) numbers of words, 0 behind the last one, to (n, num_classes) logits."""
        x = self.embed(texts)
        for layer, dropout in zip(self.layers, self.dropouts, strict=True):
            x = dropout(layer(x))
        last = jnp.maximum(jnp.sum(texts != 0, axis=1) - 1, 0)
        return self.logits(x[jnp.arange(len(x)), last])

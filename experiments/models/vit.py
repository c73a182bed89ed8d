"""Vision transformer (Dosovitskiy et al. 2021): class token, learned positions, pre-norm blocks."""

from collections.abc import Callable
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Size:
    """What tells one vision transformer from another; `patch` is its side in pixels."""

    patch: int
    depth: int
    width: int
    heads: int
    mlp: int

    def scaled(self, width: float, depth: float) -> "Size":
        """The same patches and widths of heads, with so many times the heads and blocks."""
        heads = max(1, round(width * self.heads))
        return dataclasses.replace(
            self,
            depth=max(1, round(depth * self.depth)),
            width=self.width * heads // self.heads,
            heads=heads,
            mlp=self.mlp * heads // self.heads,
        )


SMALL = Size(patch=7, depth=4, width=64, heads=4, mlp=128)
BASE = Size(patch=16, depth=12, width=768, heads=12, mlp=3072)
HUGE = Size(patch=14, depth=32, width=1280, heads=16, mlp=5120)


class Block(nnx.Module):
    """Self-attention and a two-layer network, each behind a norm and around a skip."""

    def __init__(self, size: Size, dtype: Any, *, rngs: nnx.Rngs):
        self.attention_norm = nnx.LayerNorm(size.width, dtype=dtype, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            size.heads, size.width, dtype=dtype, decode=False, rngs=rngs
        )
        self.mlp_norm = nnx.LayerNorm(size.width, dtype=dtype, rngs=rngs)
        self.up = nnx.Linear(size.width, size.mlp, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(size.mlp, size.width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (n, tokens, width) to the same shape."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.down(nnx.gelu(self.up(self.mlp_norm(x))))


_rematerialized = nnx.remat(Block.__call__)


def _stacked(size: Size, dtype: Any, rngs: nnx.Rngs) -> Block:
    """All blocks as one, whose parameters have an axis in front."""

    @nnx.split_rngs(splits=size.depth)
    @nnx.vmap(in_axes=0, out_axes=0)
    def make(rngs: nnx.Rngs) -> Block:
        return Block(size, dtype, rngs=rngs)

    return make(rngs)


class ViT(nnx.Module):
    """Vision transformer of any `Size`; parameters in float32, activations in `dtype`.

    With `remat` a block's activations are computed anew in the backward pass, not kept. With `scan`
    the parameters of all blocks are stacked, and compiling takes as long as for one block.
    `constrain` is applied to what goes into a block, (n, tokens, width), for example to keep it
    sharded.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        num_classes: int,
        *,
        size: Size = SMALL,
        width: float = 1.0,
        depth: float = 1.0,
        dtype: Any = None,
        remat: bool = False,
        scan: bool = False,
        constrain: Callable[[jax.Array], jax.Array] | None = None,
        rngs: nnx.Rngs,
    ):
        size = size.scaled(width, depth)
        rows, columns, channels = image_shape
        if rows % size.patch or columns % size.patch:
            raise ValueError(
                f"`image_shape` must be a multiple of the patch {size.patch}, got {image_shape}."
            )
        patch = (size.patch, size.patch)
        tokens = (rows // size.patch) * (columns // size.patch) + 1
        normal = nnx.initializers.normal(0.02)
        self.embed = nnx.Conv(
            channels, size.width, patch, strides=patch, padding="VALID", dtype=dtype, rngs=rngs
        )
        self.class_token = nnx.Param(jnp.zeros((1, 1, size.width)))
        self.positions = nnx.Param(normal(rngs.params(), (1, tokens, size.width)))
        self.blocks: Any = (
            _stacked(size, dtype, rngs)
            if scan
            else nnx.List(Block(size, dtype, rngs=rngs) for _ in range(size.depth))
        )
        self.remat, self.scan, self.constrain = remat, scan, constrain
        self.norm = nnx.LayerNorm(size.width, dtype=dtype, rngs=rngs)
        self.logits = nnx.Linear(size.width, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps (n, height, width, channels) images to (n, num_classes) logits."""
        x = self.embed(images)
        x = x.reshape(len(x), -1, x.shape[-1])
        token = jnp.broadcast_to(self.class_token[...], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([token.astype(x.dtype), x], axis=1)
        x = x + self.positions[...].astype(x.dtype)
        apply = _rematerialized if self.remat else Block.__call__

        def step(block: Block, x: jax.Array) -> jax.Array:
            return apply(block, self.constrain(x) if self.constrain else x)

        if self.scan:
            x = nnx.scan(step, in_axes=(0, nnx.Carry), out_axes=nnx.Carry)(self.blocks, x)
        else:
            for block in self.blocks:
                x = step(block, x)
        return self.logits(self.norm(x[:, 0]).astype(jnp.float32))

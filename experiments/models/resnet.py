"""Residual networks (He et al. 2016) with the stride in the 3 x 3 convolution of a bottleneck."""

from collections.abc import Callable, Sequence
import functools

from flax import nnx
import jax
import jax.numpy as jnp

CHANNELS = (64, 128, 256, 512)


class _ConvNorm(nnx.Module):
    """A convolution without bias, then batch norm."""

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        kernel: int,
        stride: int = 1,
        *,
        scale_init: Callable = nnx.initializers.ones,
        rngs: nnx.Rngs,
    ):
        self.convolution = nnx.Conv(
            fan_in,
            fan_out,
            (kernel, kernel),
            strides=stride,
            padding=kernel // 2,
            use_bias=False,
            kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(fan_out, momentum=0.9, scale_init=scale_init, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.convolution(x))


class Block(nnx.Module):
    """Convolutions around a skip; the last norm starts at zero, so the block as the identity."""

    def __init__(self, fan_in: int, channels: int, stride: int, bottleneck: bool, rngs: nnx.Rngs):
        layer = functools.partial(_ConvNorm, rngs=rngs)
        fan_out = 4 * channels if bottleneck else channels
        zero = nnx.initializers.zeros
        if bottleneck:
            layers = [
                layer(fan_in, channels, 1),
                layer(channels, channels, 3, stride),
                layer(channels, fan_out, 1, scale_init=zero),
            ]
        else:
            layers = [
                layer(fan_in, channels, 3, stride),
                layer(channels, fan_out, 3, scale_init=zero),
            ]
        self.layers = nnx.List(layers)
        change = stride > 1 or fan_in != fan_out
        self.skip = layer(fan_in, fan_out, 1, stride) if change else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (n, height, width, fan_in) to (n, height / stride, width / stride, fan_out)."""
        skip = x if self.skip is None else self.skip(x)
        *first, last = self.layers
        for layer in first:
            x = nnx.relu(layer(x))
        return nnx.relu(skip + last(x))


class ResNet(nnx.Module):
    """Four stages of blocks, each of twice the channels and half the side of the one before.

    Images of 64 pixels and more enter by a 7 x 7 convolution of stride 2 and max pooling, smaller
    ones by a 3 x 3 convolution.

    Attributes:
      num_features: channels of the last stage.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        num_classes: int,
        *,
        blocks: Sequence[int],
        bottleneck: bool,
        width: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.is_large = min(image_shape[:2]) >= 64
        sizes = [round(width * channels) for channels in CHANNELS]
        kernel, stride = (7, 2) if self.is_large else (3, 1)
        self.stem = _ConvNorm(image_shape[-1], sizes[0], kernel, stride, rngs=rngs)
        stages, fan_in = [], sizes[0]
        for stage, (channels, number) in enumerate(zip(sizes, blocks, strict=True)):
            for block in range(number):
                stride = 2 if stage and not block else 1
                stages.append(Block(fan_in, channels, stride, bottleneck, rngs))
                fan_in = 4 * channels if bottleneck else channels
        self.blocks = nnx.List(stages)
        self.num_features = fan_in
        self.logits = nnx.Linear(fan_in, num_classes, rngs=rngs)

    def features(self, images: jax.Array) -> jax.Array:
        """Maps (n, height, width, channels) images to (n, num_features)."""
        x = nnx.relu(self.stem(images))
        if self.is_large:
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        for block in self.blocks:
            x = block(x)
        return jnp.mean(x, axis=(1, 2))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps (n, height, width, channels) images to (n, num_classes) logits."""
        return self.logits(self.features(images))


resnet18 = functools.partial(ResNet, blocks=(2, 2, 2, 2), bottleneck=False)
resnet50 = functools.partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=True)

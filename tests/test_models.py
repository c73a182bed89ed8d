"""The models: published numbers of parameters, and what sets each apart."""

import math

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from experiments.models import MODELS, simsiam
from experiments.models.alexnet import adaptive_average_pool
from experiments.models.fully_convolutional import convolve_3x3
from experiments.models.resnet import Block


def abstract(name: str, shape: tuple[int, ...], num_classes: int, **scale) -> nnx.Module:
    return nnx.eval_shape(lambda: MODELS[name](shape, num_classes, rngs=nnx.Rngs(0), **scale))


def count(module: nnx.Module) -> int:
    leaves = jax.tree.leaves(nnx.state(module, nnx.Param))
    return sum(math.prod(leaf.shape) for leaf in leaves)


@pytest.mark.parametrize(
    ("name", "shape", "num_classes", "expected"),
    [
        ("fcn", (28, 28, 1), 10, 1_462_538),
        ("cnn", (28, 28, 1), 10, 421_642),
        ("vit", (28, 28, 1), 10, 139_018),
        ("fc2", (32, 32, 3), 10, 3073 * 256 + 257 * 10),
        ("fc4", (32, 32, 3), 10, 3073 * 512 + 513 * 512 + 513 * 256 + 257 * 10),
        ("fc6", (32, 32, 3), 10, 3073 * 512 + 3 * 513 * 512 + 513 * 256 + 257 * 10),
        # Published: 3.9 million.
        ("fully_convolutional", (32, 32, 3), 10, 3_918_858),
        ("fully_convolutional", (128, 128, 3), 10, 3_918_858),
        # Of torchvision 0.20, at these numbers of classes.
        ("alexnet", (32, 32, 3), 10, 57_044_810),
        ("alexnet", (128, 128, 3), 10, 57_044_810),
        ("alexnet", (224, 224, 3), 1000, 61_100_840),
        ("resnet18", (224, 224, 3), 1000, 11_689_512),
        ("resnet50", (224, 224, 3), 1000, 25_557_032),
        ("vit_base", (224, 224, 3), 1000, 86_567_656),
        ("vit_huge", (224, 224, 3), 1000, 632_045_800),
        # ResNet-18 with a 3 x 3 stem and without its last layer, projector, predictor.
        ("simsiam", (32, 32, 3), 10, 11_168_832 + 788_480 + 131_840),
        # Embedding; weights of an LSTM layer's four gates and one bias each; last layer.
        (
            "lstm",
            (50,),
            4,
            5000 * 128 + 4 * 512 * (128 + 512 + 1) + 3 * 4 * 512 * 1025 + 513 * 4,
        ),
    ],
)
def test_number_of_parameters(name, shape, num_classes, expected):
    stacked = {"scan": True} if name in ("vit_base", "vit_huge") else {}
    assert count(abstract(name, shape, num_classes, **stacked)) == expected


SHAPES = {"lstm": (50,), "vit_base": (32, 32, 3), "vit_huge": (28, 28, 3), "vit": (28, 28, 1)}


@pytest.mark.parametrize("name", MODELS)
def test_a_quarter_of_the_width(name):
    shape = SHAPES.get(name, (32, 32, 3))
    shallow = {"depth": 0.1} if name in ("vit_base", "vit_huge") else {}
    scaled = abstract(name, shape, 10, width=0.25, **shallow)
    ratio = count(scaled) / count(abstract(name, shape, 10, **shallow))
    # Inner layers shrink by 16, the ones at both ends by 4.
    assert 1 / 16 < ratio < 1 / 3.9


def test_a_vision_transformer_of_half_the_depth():
    whole, half = (abstract("vit_base", (32, 32, 3), 10, depth=depth) for depth in (1, 0.5))
    assert (len(whole.blocks), len(half.blocks)) == (12, 6)
    assert [block.attention.num_heads for block in half.blocks] == [12] * 6


@pytest.mark.parametrize("name", ["alexnet", "fully_convolutional", "vit_base"])
def test_images_that_do_not_fit_are_refused(name):
    with pytest.raises(ValueError, match="`image_shape` must be"):
        abstract(name, (28, 28, 1), 10)
    with pytest.raises(ValueError, match="`text_shape` must be"):
        abstract("lstm", (28, 28, 1), 10)


@pytest.mark.parametrize("height", [1, 2, 5])
def test_a_convolution_of_an_image_smaller_than_its_kernel(height):
    """Against SciPy."""
    random = np.random.default_rng(0)
    images = random.normal(size=(2, height, 2, 3)).astype(np.float32)
    kernel = random.normal(size=(3, 3, 3, 4)).astype(np.float32)
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    args = (images, kernel, (1, 1), "SAME")
    result = convolve_3x3(*args, **options)
    for image, maps in zip(images, result, strict=True):
        for channel in range(4):
            expected = sum(
                signal.correlate2d(image[..., c], kernel[..., c, channel], mode="same")
                for c in range(3)
            )
            np.testing.assert_allclose(maps[..., channel], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [2, 3, 7, 12])
def test_adaptive_average_pool(length):
    """Against window means, one by one."""
    images = np.random.default_rng(0).normal(size=(2, length, length, 3)).astype(np.float32)
    pooled = adaptive_average_pool(jnp.asarray(images), 6)
    for i in range(6):
        for j in range(6):
            (top, bottom), (left, right) = (
                (math.floor(k * length / 6), math.ceil((k + 1) * length / 6)) for k in (i, j)
            )
            mean = images[:, top:bottom, left:right].mean((1, 2))
            np.testing.assert_allclose(pooled[:, i, j], mean, rtol=1e-5, atol=1e-6)


def test_a_residual_network_starts_as_its_skips():
    """Every block's last norm is zero, so the blocks without change of shape are the identity."""
    x = jnp.abs(jax.random.normal(jax.random.key(0), (2, 8, 8, 4)))
    for channels, bottleneck in ((4, False), (1, True)):
        block = Block(4, channels, stride=1, bottleneck=bottleneck, rngs=nnx.Rngs(0))
        np.testing.assert_array_equal(nnx.jit(lambda block, x: block(x))(block, x), x)


def test_simsiam_loss_and_its_gradient(monkeypatch):
    """Equal views: -1 where the prediction is the projection; no gradient through the target."""

    class Pixels(nnx.Module):
        num_features = 16

        def __init__(self, *_, rngs, **__):
            self.logits = nnx.Linear(48, self.num_features, rngs=rngs)
            self.linear = nnx.Linear(48, self.num_features, rngs=rngs)

        def features(self, images):
            return self.linear(images.reshape(len(images), -1))

    monkeypatch.setattr(simsiam, "resnet18", Pixels)
    model = simsiam.SimSiam((4, 4, 3), 10, width=1 / 16, rngs=nnx.Rngs(0))
    views = jax.random.normal(jax.random.key(0), (4, 2, 4, 4, 3))

    @nnx.jit
    def prediction(model, weight):
        model.up.kernel[...] = weight * model.up.kernel[...]
        model.up.bias[...] = weight * model.up.bias[...]
        return jnp.mean(model(views))

    loss = prediction(model, 1.0)
    assert -1 <= loss <= 1
    np.testing.assert_allclose(prediction(model, 7.0), loss, rtol=1e-4)  # Only angles count.

    # With a predictor that gives a constant, all that could move the backbone is the target.
    model.up.kernel[...] = jnp.zeros_like(model.up.kernel[...])
    model.up.bias[...] = jnp.ones_like(model.up.bias[...])
    grads = nnx.jit(nnx.grad(lambda model: jnp.mean(model(views))))(model)
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(grads.backbone))
    assert jnp.any(grads.up.bias[...])


def test_the_lstm_does_not_read_padding():
    model = MODELS["lstm"]((50,), 4, width=1 / 32, rngs=nnx.Rngs(0))
    model = nnx.view(model, deterministic=True)
    texts = np.zeros((2, 50), np.int32)
    texts[:, :3] = 5, 7, 9
    texts[1, 3] = 11
    apply = nnx.jit(lambda model, texts: model(texts))
    logits = apply(model, jnp.asarray(texts))
    np.testing.assert_allclose(apply(model, jnp.asarray(texts[:, :4])), logits, rtol=1e-5)
    assert not np.allclose(logits[0], logits[1])

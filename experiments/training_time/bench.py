"""Seconds of predicting training time over those of training, for a ResNet-18 at 32 x 32.

Nothing is trained. A step is measured and multiplied by the steps; the gradients of the prediction
are measured on a few examples and multiplied by the number of examples; what is done once, such as
compiling, and the simulation of all steps are added. By default as many steps as the networks of
`experiments.training_time.predict` take with cross-entropy to 0.2 of the initial loss.

Example:
  python -m experiments.training_time.bench --steps=700 --examples=1000
"""

from collections.abc import Callable
import time
from typing import Any

from absl import flags
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import cli
from experiments.models.resnet import resnet18
import pdt_optax

_STEPS = flags.DEFINE_integer("steps", 700, "Steps of the training run.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images a step.", lower_bound=1)
_EXAMPLES = flags.DEFINE_integer("examples", 1000, "Images to fine-tune on.", lower_bound=100)
_MEASURED = flags.DEFINE_integer("measured", 12, "Images whose gradients are timed.", lower_bound=2)
_SHAPE, _CLASSES = (32, 32, 3), 10


def main() -> None:
    """Runs the program."""
    apply, params = _network()
    images = np.random.default_rng(0).random((5 * _MEASURED.value, *_SHAPE), np.float32)
    step = _seconds_of_a_step(apply, params, np.resize(images, (_BATCH_SIZE.value, *_SHAPE)))
    once, each = _seconds_of_gradients(apply, params, images)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    training = _STEPS.value * step
    print(f"ResNet-18 of {size:,} parameters, images {_SHAPE}, {jax.devices()[0].device_kind}")
    print(
        f"training of {_STEPS.value} steps of {_BATCH_SIZE.value}: {step:.2f} s a step, "
        f"{training:.0f} s"
    )
    for linearizations in (1, 2):
        passes = 2 * (linearizations - 1) * _EXAMPLES.value * step / _BATCH_SIZE.value
        kernels = linearizations * each * _EXAMPLES.value
        simulations = sum(map(_seconds_of_simulation, range(1, linearizations + 1)))
        prediction = once + kernels + passes + simulations
        print(
            f"prediction, linearised {linearizations} times: {once:.0f} s once, kernels "
            f"{each:.3f} s an example, passes over the data {passes:.0f} s, simulation "
            f"{simulations:.1f} s, {prediction:.0f} s; {training / prediction:.1f} times less"
        )


def _network() -> tuple[Callable[[Any, jax.Array], jax.Array], Any]:
    model = resnet18(_SHAPE, _CLASSES, rngs=nnx.Rngs(0))
    model.eval()
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def apply(params: Any, images: jax.Array) -> jax.Array:
        return nnx.merge(graph, params, rest)(images)

    return apply, nnx.to_pure_dict(params)


def _seconds_of_a_step(apply: Any, params: Any, images: np.ndarray) -> float:
    """The least of three steps of SGD with momentum, after one that compiles."""
    tx, labels = optax.sgd(1e-3, 0.9), jnp.arange(len(images)) % _CLASSES

    @jax.jit
    def step(params, state):
        def loss(params):
            logits = apply(params, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = tx.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    carry, seconds = (params, tx.init(params)), []
    for _ in range(4):
        start = time.perf_counter()
        carry = jax.block_until_ready(step(*carry))
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _seconds_of_gradients(apply: Any, params: Any, images: np.ndarray) -> tuple[float, float]:
    """What the kernel of a fifth of the images and of all takes: seconds once, and for each."""
    seconds, few = [], len(images) // 5
    for number in (few, few, len(images)):
        start = time.perf_counter()
        pdt_optax.training_time.empirical_kernel(
            apply,
            params,
            images[:number],
            kernel="trace",
            num_cotangents=1,
            projection_dim=2 * _EXAMPLES.value,
        )
        seconds.append(time.perf_counter() - start)
    each = (seconds[2] - seconds[1]) / (len(images) - few)
    return seconds[0] - each * few, each


def _seconds_of_simulation(kernels: int) -> float:
    """Of all steps, on that many kernels of that size, with their product and eigenvalues."""
    number, steps = _EXAMPLES.value, _STEPS.value
    features = np.random.default_rng(0).normal(size=(number, 2 * number))
    batches = pdt_optax.training_time.sample_batches(
        jax.random.key(0), number, _BATCH_SIZE.value, steps, "reshuffle"
    )
    start = time.perf_counter()
    kernel = pdt_optax.training_time.EmpiricalKernel(features @ features.T)
    kernel.eigenvalues()
    pdt_optax.training_time.function_space_sgd(
        [kernel] * kernels,
        np.zeros((number, _CLASSES)),
        np.arange(number) % _CLASSES,
        loss="softmax_cross_entropy",
        learning_rate=1e-4,
        steps=steps,
        batches=batches,
        kernel_losses=np.geomspace(2, 1, kernels).tolist() if kernels > 1 else (),
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    cli.run(main)

"""A workload: a model, a data set, the loss that is trained and the metrics that are reported."""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from experiments.data import Array, Dataset, Examples


class Evaluation(NamedTuple):
    """Means over a set of examples, float32 scalars.

    Where the loss is not finite, the accuracy is nan.
    """

    loss: jax.Array
    accuracy: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Workload:
    """What is trained, as pure functions of the parameters (a nested dict of arrays).

    Attributes:
      dataset: the examples.
      init: seed -> initial parameters.
      apply: (parameters, images) -> (n, num_classes) logits.
    """

    dataset: Dataset
    init: Callable[[int], optax.Params]
    apply: Callable[[optax.Params, Array], jax.Array]

    def loss(self, params: optax.Params, examples: Examples) -> jax.Array:
        """Mean softmax cross-entropy."""
        return self.evaluate(params, examples).loss

    def evaluate(self, params: optax.Params, examples: Examples) -> Evaluation:
        """Mean loss and accuracy of the parameters, in one forward pass."""
        logits = self.apply(params, examples.images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, examples.labels)
        loss = jnp.mean(losses)
        accuracy = jnp.mean(logits.argmax(-1) == examples.labels)
        return Evaluation(loss, jnp.where(jnp.isfinite(loss), accuracy, jnp.nan))


def create(model: Callable[..., nnx.Module], dataset: Dataset) -> Workload:
    """Joins a model of `experiments.models` with a data set."""

    def build(seed: int) -> nnx.Module:
        return model(dataset.image_shape, dataset.num_classes, rngs=nnx.Rngs(seed))

    graph = nnx.graphdef(nnx.eval_shape(lambda: build(0)))

    def init(seed: int) -> optax.Params:
        return nnx.to_pure_dict(nnx.state(build(seed)))

    def apply(params: optax.Params, images: Array) -> jax.Array:
        return nnx.merge(graph, params)(images)

    return Workload(dataset, init, apply)

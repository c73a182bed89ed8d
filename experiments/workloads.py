"""A workload: a model, a data set, the loss that is trained and the metrics that are reported."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data import Array, Dataset, Examples, Split

# What a model keeps beside its parameters, as a nested dict of arrays: running statistics of
# batch norm, random keys of dropout. Empty for a model with neither.
ModelState = Any

EVALUATION_BATCH = 500


class Evaluation(NamedTuple):
    """Means over a set of examples.

    Where the loss is not finite, the accuracy is nan.
    """

    loss: float
    accuracy: float


@dataclasses.dataclass(frozen=True, eq=False)
class Workload:
    """What is trained.

    Attributes:
      dataset: the examples.
      init: seed -> (initial parameters, initial model state), nested dicts of arrays.
      loss: (parameters, model state, batch) -> (mean loss, next model state), in training mode.
      logits: (parameters, model state, inputs) -> logits without dropout, with batch norm by the
        statistics of the inputs.
      score: (parameters, model state, batch) -> mean loss of these: jumped parameters are judged
        by what they do, not by running statistics of the parameters before.
      evaluate: (parameters, model state, split) -> metrics over a whole split, in evaluation mode;
        not to be called under `jax.jit`.
    """

    dataset: Dataset
    init: Callable[[int], tuple[optax.Params, ModelState]]
    loss: Callable[[optax.Params, ModelState, Examples], tuple[jax.Array, ModelState]]
    logits: Callable[[optax.Params, ModelState, Array], jax.Array]
    score: Callable[[optax.Params, ModelState, Examples], jax.Array]
    evaluate: Callable[[optax.Params, ModelState, Split], Evaluation]


def create(model: Callable[..., nnx.Module], dataset: Dataset) -> Workload:
    """Joins a model of `experiments.models` with a data set."""
    modes = _Modes(model, dataset)

    def loss(
        params: optax.Params, state: ModelState, examples: Examples
    ) -> tuple[jax.Array, ModelState]:
        module = modes.training(params, state)
        value = jnp.mean(_losses(module, examples))
        return value, nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.Param)))

    def logits(params: optax.Params, state: ModelState, inputs: Array) -> jax.Array:
        return modes.scoring(params, state)(inputs)

    def score(params: optax.Params, state: ModelState, examples: Examples) -> jax.Array:
        return jnp.mean(_losses(modes.scoring(params, state), examples))

    @jax.jit
    def sums(params: optax.Params, state: ModelState, examples: Examples) -> jax.Array:
        logits = modes.evaluation(params, state)(examples.inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, examples.labels)
        return jnp.stack([jnp.sum(losses), jnp.sum(logits.argmax(-1) == examples.labels)])

    def evaluate(params: optax.Params, state: ModelState, split: Split) -> Evaluation:
        batches = dataset.split_batches(split, EVALUATION_BATCH)
        parts = [np.asarray(sums(params, state, batch), np.float64) for batch in batches]
        loss, accuracy = np.sum(parts, axis=0) / dataset.size(split)
        return Evaluation(loss, accuracy if np.isfinite(loss) else np.nan)

    return Workload(dataset, modes.init, loss, logits, score, evaluate)


def _losses(module: Callable[..., jax.Array], examples: Examples) -> jax.Array:
    logits = module(examples.inputs)
    return optax.softmax_cross_entropy_with_integer_labels(logits, examples.labels)


class _Modes:
    """A model as functions (parameters, model state) -> module, one for each mode."""

    def __init__(self, model: Callable[..., nnx.Module], dataset: Dataset):
        def build(seed: int) -> nnx.Module:
            return model(dataset.input_shape, dataset.num_classes, rngs=nnx.Rngs(seed))

        def init(seed: int) -> tuple[optax.Params, ModelState]:
            _, params, state = nnx.split(build(seed), nnx.Param, ...)
            return nnx.to_pure_dict(params), nnx.to_pure_dict(state)

        abstract = nnx.eval_shape(lambda: build(0))

        def mode(deterministic: bool, use_running_average: bool) -> Callable[..., Any]:
            view = nnx.view(
                abstract,
                deterministic=deterministic,
                use_running_average=use_running_average,
                raise_if_not_found=False,
            )
            return functools.partial(nnx.merge, nnx.graphdef(view))

        self.init = init
        self.training = mode(deterministic=False, use_running_average=False)
        self.scoring = mode(deterministic=True, use_running_average=False)
        self.evaluation = mode(deterministic=True, use_running_average=True)

"""A workload: a model, a data set, the loss that is trained and the metrics that are reported."""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data import Array, ArrayDataset, Dataset, Examples, Split, augment
from experiments.models import SimSiam
from experiments.runs import knn_probe
from experiments.runs.devices import ONE, Placement
from experiments.runs.step import ModelState

EVALUATION_BATCH = 500
EVALUATION_SEED = 0


class Evaluation(NamedTuple):
    """Means over a set of examples.

    Where the loss is not finite, the accuracy is nan.
    """

    loss: float
    accuracy: float


class Evaluate(Protocol):
    """The type of `Workload.evaluate`."""

    def __call__(
        self, params: optax.Params, state: ModelState, split: Split, placement: Placement = ONE
    ) -> Evaluation:
        """Metrics over a whole split, in evaluation mode; not to be called under `jax.jit`."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Workload:
    """What is trained.

    Attributes:
      dataset: the examples.
      init: seed -> (initial parameters, initial model state), nested dicts of arrays.
      loss: (parameters, model state, batch) -> (mean loss, next model state), in training mode.
      logits: (parameters, model state, inputs) -> logits without dropout, with batch norm by the
        statistics of the inputs; None without classes.
      score: (parameters, model state, batch) -> mean loss of these: jumped parameters are judged
        by what they do, not by running statistics of the parameters before.
      evaluate: (parameters, model state, split, placement) -> metrics over a whole split.
      validation: () -> the validation split as one batch of `score`.
    """

    dataset: Dataset
    init: Callable[[int], tuple[optax.Params, ModelState]]
    loss: Callable[[optax.Params, ModelState, Examples], tuple[jax.Array, ModelState]]
    logits: Callable[[optax.Params, ModelState, Array], jax.Array] | None
    score: Callable[[optax.Params, ModelState, Examples], jax.Array]
    evaluate: Evaluate
    validation: Callable[[], Examples]


def create(
    model: Callable[..., nnx.Module], dataset: Dataset, resolution: int | None = None
) -> Workload:
    """Joins a model of `experiments.models` with a data set.

    Args:
      model: (input shape, number of classes, rngs=...) -> module. `SimSiam` is trained without
        labels, and its accuracy is that of its nearest neighbours in the train split; there is
        none on the train split itself.
      dataset: the examples.
      resolution: pixels a side to which images are resized on the device; None leaves them.

    Raises:
      ValueError: if the model cannot be trained on the data set.
      ZeroDivisionError: if a layer has no units, as initializers before jax 0.12 have it.
    """
    modes = _Modes(model, dataset, resolution)
    if not all(leaf.size for leaf in jax.tree.leaves(nnx.state(modes.module, nnx.Param))):
        raise ZeroDivisionError("a layer without units")
    if isinstance(modes.module, SimSiam):
        return _without_labels(modes, dataset)
    return _classification(modes, dataset)


def _classification(modes: "_Modes", dataset: Dataset) -> Workload:
    def losses(logits: jax.Array, examples: Examples) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits, examples.labels)

    @jax.jit
    def sums(params: optax.Params, state: ModelState, examples: Examples, size: int) -> jax.Array:
        logits = modes.evaluation(params, state)(modes.resize(examples.inputs))
        right = logits.argmax(-1) == examples.labels
        of_each = jnp.stack([losses(logits, examples), right.astype(logits.dtype)])
        return jnp.sum(jnp.where(jnp.arange(len(right)) < size, of_each, 0), axis=1)

    def evaluate(params, state, split, placement=ONE) -> Evaluation:
        batches = dataset.split_batches(split, EVALUATION_BATCH, placement.read)

        def parts() -> Iterator[tuple[jax.Array, int]]:
            left = dataset.size(split)
            for batch in batches:
                size = min(EVALUATION_BATCH, left)
                yield sums(params, state, placement.put_read(batch, size), size), size
                left -= size

        return _mean(parts())

    def validation() -> Examples:
        return next(dataset.split_batches("validation", dataset.size("validation")))

    return Workload(dataset, modes.init, *modes.training_losses(losses), evaluate, validation)


def _without_labels(modes: "_Modes", dataset: Dataset) -> Workload:
    if not isinstance(dataset, ArrayDataset) or len(dataset.input_shape) != 3:
        raise ValueError("SimSiam must be trained on images that are held in memory.")

    def losses(losses: jax.Array, examples: Examples) -> jax.Array:
        del examples
        return losses

    @jax.jit
    def features(params: optax.Params, state: ModelState, images: Array) -> jax.Array:
        return modes.evaluation(params, state).features(modes.resize(images))

    @jax.jit
    def loss(params, state, views) -> jax.Array:
        return jnp.sum(modes.evaluation(params, state)(modes.resize(views)))

    @jax.jit
    def right(params, state, examples, known, labels) -> jax.Array:
        own = features(params, state, examples.inputs)
        found = knn_probe.nearest_classes(own, known, labels, dataset.num_classes)
        return jnp.sum(found == examples.labels)

    def neighbours(params, state) -> Callable[[Examples], Any]:
        train = list(dataset.split_batches("train", EVALUATION_BATCH))
        known = jnp.concatenate([features(params, state, batch.inputs) for batch in train])
        labels = np.concatenate([batch.labels for batch in train])
        return lambda examples: right(params, state, examples, known, labels)

    def views(batch: Examples, number: int) -> np.ndarray:
        random = np.random.default_rng([EVALUATION_SEED, number])
        return augment.two_views(random, np.asarray(batch.inputs))

    def evaluate(params, state, split, placement=ONE) -> Evaluation:
        del placement  # Each device sees all neighbours.
        found = neighbours(params, state) if split != "train" else lambda examples: np.nan

        def parts() -> Iterator[tuple[Any, int]]:
            for number, batch in enumerate(dataset.split_batches(split, EVALUATION_BATCH)):
                sums = loss(params, state, views(batch, number)), found(batch)
                yield sums, len(batch.labels)

        return _mean(parts())

    def validation() -> Examples:
        whole = next(dataset.split_batches("validation", dataset.size("validation")))
        return whole._replace(inputs=views(whole, 0))

    of_views = dataclasses.replace(dataset, augment=augment.two_views)
    training_loss, _, score = modes.training_losses(losses)
    return Workload(of_views, modes.init, training_loss, None, score, evaluate, validation)


def _mean(parts: Iterable[tuple[Any, int]]) -> Evaluation:
    """From (sum of losses, number of right answers) and the size of each batch."""
    sums, sizes = zip(*((np.asarray(sums, np.float64), size) for sums, size in parts), strict=True)
    loss, accuracy = np.sum(sums, axis=0) / sum(sizes)
    return Evaluation(loss, accuracy if np.isfinite(loss) else np.nan)


class _Modes:
    """A model as functions (parameters, model state) -> module, one for each mode."""

    def __init__(self, model: Callable[..., nnx.Module], dataset: Dataset, resolution: int | None):
        shape = dataset.input_shape
        if resolution is not None:
            if len(shape) != 3:
                raise ValueError(f"`resolution` must be None for inputs of shape {shape}.")
            shape = (resolution, resolution, shape[-1])

        def build(seed: int) -> nnx.Module:
            return model(shape, dataset.num_classes, rngs=nnx.Rngs(seed))

        def init(seed: int) -> tuple[optax.Params, ModelState]:
            _, params, state = nnx.split(build(seed), nnx.Param, ...)
            return nnx.to_pure_dict(params), nnx.to_pure_dict(state)

        def mode(deterministic: bool, use_running_average: bool) -> Callable[..., Any]:
            view = nnx.view(
                self.module,
                deterministic=deterministic,
                use_running_average=use_running_average,
                raise_if_not_found=False,
            )
            return functools.partial(nnx.merge, nnx.graphdef(view))

        self.init = init
        self.module = nnx.eval_shape(lambda: build(0))
        self.training = mode(deterministic=False, use_running_average=False)
        self.scoring = mode(deterministic=True, use_running_average=False)
        self.evaluation = mode(deterministic=True, use_running_average=True)
        self._resolution = resolution

    def resize(self, inputs: Array) -> Array:
        """Resizes images (..., height, width, channels)."""
        if self._resolution is None:
            return inputs
        shape = (*inputs.shape[:-3], self._resolution, self._resolution, inputs.shape[-1])
        return jax.image.resize(inputs, shape, "bilinear")

    def training_losses(
        self, losses: Callable[[jax.Array, Examples], jax.Array]
    ) -> tuple[Callable[..., Any], Callable[..., jax.Array], Callable[..., jax.Array]]:
        """`loss`, `logits`, `score` of a workload, from (model's output, examples) -> losses."""

        def loss(
            params: optax.Params, state: ModelState, examples: Examples
        ) -> tuple[jax.Array, ModelState]:
            module = self.training(params, state)
            value = jnp.mean(losses(module(self.resize(examples.inputs)), examples))
            return value, nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.Param)))

        def logits(params: optax.Params, state: ModelState, inputs: Array) -> jax.Array:
            return self.scoring(params, state)(self.resize(inputs))

        def score(params: optax.Params, state: ModelState, examples: Examples) -> jax.Array:
            return jnp.mean(losses(logits(params, state, examples.inputs), examples))

        return loss, logits, score

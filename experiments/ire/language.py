"""Trains a language model: one compiled stretch of steps per way of training."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data import Examples, text
from experiments.ire.masks import MASKS
from experiments.models import llama
from experiments.models.llama import SIZES, Size
from experiments.runs.step import Step, TrainState, scan, start, stateless, train_step
import pdt_optax


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a language model is trained, but for the mask.

    Attributes:
      size: of the model.
      context: tokens of a row.
      batch_size: rows of a step.
      steps: of the run.
      warmup_steps: over which the learning rate rises, and before which no step is enlarged.
      evaluate_every: steps between evaluations.
      validation_rows: rows that are evaluated, evenly spaced.
      learning_rate: peak, from which a cosine falls to a twentieth.
      kappa: of IRE.
      num_chunks: of the estimator of IRE; they divide the batch.
      epsilon: of AdamW.
    """

    size: Size
    context: int
    batch_size: int
    steps: int
    warmup_steps: int
    evaluate_every: int
    validation_rows: int
    learning_rate: float
    kappa: float
    num_chunks: int = 16
    epsilon: float = 1e-16


# Of Wang et al. (2024), with half the steps of their AdamW; evaluation is ours.
PAPER: Mapping[str, Recipe] = {
    "wikitext103": Recipe(SIZES["60m"], 150, 240, 50_000, 500, 500, 960, 6e-4, 3.0),
    "minipile": Recipe(SIZES["119m"], 512, 300, 30_000, 300, 500, 600, 6e-4, 4.0, 15),
    "openwebtext": Recipe(SIZES["229m"], 1024, 480, 50_000, 1000, 500, 480, 6e-4, 4.0),
}


@dataclasses.dataclass(frozen=True)
class Mask:
    """Which coordinates take larger steps after AdamW.

    Attributes:
      mask: none, or of `MASKS`: flat is IRE, random and sharp are its controls.
      kappa: how much larger.
      gamma: the part of the coordinates.
      num_chunks: of the estimator.
      beta: of the moving average of the estimates.
      update_interval: steps between two of them.
      scope: leaves that share a threshold.
      kappa_decays: whether kappa follows the learning rate down.
    """

    mask: str = "none"
    kappa: float = 0.0
    gamma: float = 0.6
    num_chunks: int = 16
    beta: float = 0.0
    update_interval: int = 10
    scope: str = "global"
    kappa_decays: bool = False


class Progress(NamedTuple):
    """Where a run is after a stretch of steps.

    Attributes:
      step: steps taken.
      params: the parameters.
      loss: validation loss in nats.
    """

    step: int
    params: Any
    loss: float


def next_tokens(rows: Any) -> Examples:
    """From (.., length + 1) rows of tokens the inputs and the next tokens, (.., length)."""
    return Examples(rows[..., :-1], rows[..., 1:])


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A recipe and a text, as pure functions of the parameters."""

    recipe: Recipe
    text: text.Text

    def __post_init__(self):
        shortest = min(len(self.text.train), len(self.text.validation))
        if shortest <= self.recipe.context + 1:
            raise ValueError(
                f"`text` must have more than {self.recipe.context + 1} tokens in each split, "
                f"got {shortest}."
            )
        if self.text.vocabulary > self.recipe.size.vocabulary:
            raise ValueError(
                f"`text` must have at most the {self.recipe.size.vocabulary} different tokens of "
                f"the model, got {self.text.vocabulary}."
            )

    def init(self, seed: int) -> optax.Params:
        """The initial parameters of a seed."""
        return llama.init(self.recipe.size, seed)

    def apply(self, params: optax.Params, tokens: jax.Array) -> jax.Array:
        """Maps (batch, length) tokens to logits of the next ones."""
        return llama.apply(self.recipe.size, params, tokens)

    def loss(self, params: optax.Params, batch: Examples) -> jax.Array:
        """Mean cross-entropy of the next tokens, in nats."""
        logits = self.apply(params, batch.inputs)  # pyright: ignore[reportArgumentType]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()

    def step(self, optimizer: optax.GradientTransformation) -> Step:
        """A step of training."""
        return train_step(stateless(self.loss), optimizer)

    @functools.cached_property
    def validation_rows(self) -> np.ndarray:
        """(validation rows, context + 1) tokens."""
        numbers = self.text.validation
        last = len(numbers) - self.recipe.context - 1
        return self._rows(numbers, np.linspace(0, last, self.recipe.validation_rows).astype(int))

    def _rows(self, numbers: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return numbers[starts[..., None] + np.arange(self.recipe.context + 1)]

    def run(self, mask: Mask, learning_rate: float, steps: int, seed: int) -> Iterator[Progress]:
        """Trains from the initialisation of a seed on the batches of that seed."""
        recipe, train = self.recipe, self.text.train
        random = np.random.default_rng([seed, 1])
        starts = random.integers(0, len(train) - recipe.context - 1, (steps, recipe.batch_size))
        state = start(self.init(seed), self.optimizer(mask, learning_rate, steps))
        stretch = self._stretch(mask, steps)
        for begin in range(0, steps, recipe.evaluate_every):
            rows = self._rows(train, starts[begin : begin + recipe.evaluate_every])
            state, loss = stretch(state, rows, learning_rate)
            yield Progress(begin + len(rows), jax.tree.map(jnp.copy, state.params), float(loss))

    @functools.cache  # noqa: B019 Tasks live as long as the program.
    def _stretch(self, mask: Mask, steps: int) -> Callable[..., tuple[TrainState, jax.Array]]:
        @functools.partial(jax.jit, donate_argnums=0)
        def train(state: TrainState, rows: Any, learning_rate: jax.Array):
            step = self.step(self.optimizer(mask, learning_rate, steps))
            state = scan(step, state, next_tokens(rows))
            losses = jax.lax.map(
                lambda row: self.loss(state.params, next_tokens(row[None])),
                jnp.asarray(self.validation_rows),
                batch_size=self.recipe.batch_size,
            )
            return state, jnp.mean(losses)

        return train

    def optimizer(
        self, mask: Mask, learning_rate: Any, steps: int
    ) -> optax.GradientTransformationExtraArgs:
        """AdamW with the paper's settings and a cosine to a twentieth, and a mask."""
        warmup = self.recipe.warmup_steps
        shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, steps, end_value=0.05)

        def schedule(step):
            return learning_rate * shape(step)

        base = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adamw(schedule, b1=0.9, b2=0.95, eps=self.recipe.epsilon, weight_decay=0.1),
        )
        if mask.mask == "none":
            return optax.with_extra_args_support(base)
        curvature = pdt_optax.ire.sampled_label_fisher(
            self.apply, jax.random.key(0), num_chunks=mask.num_chunks
        )
        return pdt_optax.ire.ire(
            base,
            (lambda step: mask.kappa * shape(step)) if mask.kappa_decays else mask.kappa,
            gamma=mask.gamma,
            update_interval=mask.update_interval,
            warmup_steps=warmup,
            beta=mask.beta,
            scope=mask.scope,
            curvature_fn=MASKS[mask.mask](curvature),
        )


@functools.cache
def cpu() -> Task:
    """Two layers of width 64 on the characters of the help texts of CPython."""
    numbers = text.pydoc_topics()
    size = Size(numbers.vocabulary, width=64, heads=4, layers=2, hidden=176)
    return Task(Recipe(size, 64, 16, 400, 20, 40, 256, 4e-3, 4.0, epsilon=1e-8), numbers)

"""Trains the small character language model: one compiled program per way of training."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data import pydoc_topics
from experiments.ire_masks import MASKS
from experiments.models.llama import Llama, Size
import pdt_optax

CONTEXT, BATCH_SIZE, EVALUATE_EVERY, VALIDATION_ROWS = 64, 16, 40, 256
WARMUP_STEPS = 20


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way of training: AdamW, and which coordinates take larger steps.

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


class Model(NamedTuple):
    """The language model as pure functions of its parameters.

    Attributes:
      init: seed -> parameters.
      apply: (parameters, (batch, length) tokens) -> logits.
    """

    init: Callable[[int], optax.Params]
    apply: Callable[[optax.Params, jax.Array], jax.Array]

    def loss(self, params: optax.Params, rows: jax.Array) -> jax.Array:
        """Mean cross-entropy of the next character over (batch, length + 1) rows, in nats."""
        logits = self.apply(params, rows[:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, rows[:, 1:])
        return jnp.mean(losses)


@functools.cache
def model() -> Model:
    """Two layers of width 64."""
    vocabulary = len(pydoc_topics.load().characters)
    size = Size(vocabulary, width=64, heads=4, layers=2, hidden=176)
    graph = nnx.graphdef(nnx.eval_shape(lambda: Llama(size, rngs=nnx.Rngs(0))))
    return Model(
        init=lambda seed: nnx.to_pure_dict(nnx.state(Llama(size, rngs=nnx.Rngs(seed)))),
        apply=lambda params, tokens: nnx.merge(graph, params)(tokens),
    )


class Result(NamedTuple):
    """What came out of a run.

    Attributes:
      params: the last parameters.
      losses: (evaluations,) validation losses, every `EVALUATE_EVERY` steps.
    """

    params: Any
    losses: jax.Array


def run(arm: Arm, learning_rate: float, steps: int, seed: int) -> Result:
    """Trains from the initialisation of a seed on the batches of that seed."""
    text = pydoc_topics.load()
    random = np.random.default_rng([seed, 1])
    starts = random.integers(0, len(text.train) - CONTEXT - 1, (steps, BATCH_SIZE))
    batches = text.train[starts[..., None] + np.arange(CONTEXT + 1)]
    return _program(arm, steps)(model().init(seed), batches, learning_rate)


@functools.cache
def validation_rows() -> np.ndarray:
    """(`VALIDATION_ROWS`, `CONTEXT` + 1) rows, evenly spaced."""
    text = pydoc_topics.load().validation
    starts = np.linspace(0, len(text) - CONTEXT - 1, VALIDATION_ROWS).astype(int)
    return text[starts[:, None] + np.arange(CONTEXT + 1)]


@functools.cache
def _program(arm: Arm, steps: int) -> Callable[..., Result]:
    lm = model()

    @jax.jit
    def train(params: Any, batches: jax.Array, learning_rate: jax.Array) -> Result:
        tx = optimizer(arm, learning_rate, steps)

        def step(carry, rows):
            params, state = carry
            grads = jax.grad(lm.loss)(params, rows)
            updates, state = tx.update(grads, state, params, inputs=rows[:, :-1])
            return (optax.apply_updates(params, updates), state), None

        def stretch(carry, batches):
            carry, _ = jax.lax.scan(step, carry, batches)
            return carry, lm.loss(carry[0], jnp.asarray(validation_rows()))

        stretches = batches.reshape(-1, EVALUATE_EVERY, *batches.shape[1:])
        (params, _), losses = jax.lax.scan(stretch, (params, tx.init(params)), stretches)
        return Result(params, losses)

    return train


def optimizer(arm: Arm, learning_rate: Any, steps: int) -> optax.GradientTransformationExtraArgs:
    """AdamW with the paper's settings and a cosine to a twentieth, and the arm's mask."""
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, WARMUP_STEPS, steps, end_value=0.05)

    def schedule(step):
        return learning_rate * shape(step)

    base = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.95, weight_decay=0.1)
    )
    if arm.mask == "none":
        return optax.with_extra_args_support(base)
    curvature = pdt_optax.sampled_label_fisher(
        model().apply, jax.random.key(0), num_chunks=arm.num_chunks
    )
    return pdt_optax.ire(
        base,
        (lambda step: arm.kappa * shape(step)) if arm.kappa_decays else arm.kappa,
        gamma=arm.gamma,
        update_interval=arm.update_interval,
        warmup_steps=WARMUP_STEPS,
        beta=arm.beta,
        scope=arm.scope,
        curvature_fn=MASKS[arm.mask](curvature),
    )

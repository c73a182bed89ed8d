"""What `experiments.benchmarks.events` times: functions that do it once and wait for the result."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import textbook
from experiments.data import mnist5k
from experiments.models import MODELS
from experiments.runs import training, workloads
import pdt_optax

Program = Callable[[], Any]
NEVER = 10**9
_COLUMNS = 1000
_WARM_UP = 12


def events(size: int, histories: tuple[int, ...], with_textbook: bool) -> dict[str, Program]:
    """The last step of a snapshot period with a prediction and without, copies, textbook events.

    Args:
      size: number of coordinates N, a multiple of 1000.
      histories: snapshots fitted.
      with_textbook: whether the textbook events are among them.
    """
    shape = (size // _COLUMNS, _COLUMNS)
    programs = {f"event, h = {h}": _period(shape, history=h, interval=0) for h in histories}
    programs["snapshot, h = 5"] = _period(shape, history=5, start=NEVER)
    programs["copy"] = _copies(shape)
    programs["copy in place"] = _copies(shape, donate_argnums=0)
    if with_textbook:
        random = np.random.default_rng(0)
        snapshots = random.standard_normal((size, 5), np.float32).cumsum(axis=1)
        arrived = snapshots[:, -1] + random.standard_normal(size, np.float32)
        for name, (event, convert) in textbook.available().items():
            arguments = convert(snapshots), convert(arrived), 5
            programs[f"textbook, {name}"] = functools.partial(_finish, event, arguments)
    return programs


def steps(model: str, optimizer: optax.GradientTransformation) -> dict[str, Program]:
    """Ordinary training steps without PDT and with it; no snapshot falls among them."""
    return {
        "without": _training(model, optimizer, steps=5),
        "with PDT": _training(model, optax.chain(optimizer, pdt_optax.pdt(NEVER)), steps=5),
    }


def epochs(model: str, optimizer: optax.GradientTransformation) -> dict[str, Program]:
    """Two epochs, of which one ends in a blind prediction, or both in verified ones."""
    every = mnist5k.load().steps_per_epoch(256)
    verified = pdt_optax.pdt(every, pdt_optax.Verify())
    return {
        "without": _training(model, optimizer, steps=2 * every),
        "with PDT": _training(model, optax.chain(optimizer, pdt_optax.pdt(every)), steps=2 * every),
        "verified": _training(model, optax.chain(optimizer, verified), steps=2 * every),
    }


def _period(shape: tuple[int, ...], **options: Any) -> Program:
    jump = pdt_optax.Extrapolate(**options)
    tx = optax.chain(optax.sgd(1.0), pdt_optax.pdt(1, jump))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    grads = 1e-3 * jax.random.normal(jax.random.key(0), shape)
    params = jnp.zeros(shape)
    carry = [params, tx.init(params)]

    def program():
        carry[:] = jax.block_until_ready(step(*carry, grads))

    for _ in range(_WARM_UP):
        program()
    return program


def _copies(shape: tuple[int, ...], **options: Any) -> Program:
    """Six arrays read and six written; `bench` scales it to the thirteen of an event at h = 5."""

    @functools.partial(jax.jit, **options)
    def copy(arrays):
        return [array + 1 for array in arrays]

    carry = [[jnp.zeros(shape) for _ in range(6)]]

    def program():
        result = jax.block_until_ready(copy(carry[0]))
        if options:
            carry[0] = result

    program()
    return program


def _finish(event: textbook.Event, arguments: tuple[Any, Any, int]) -> None:
    result = event(*arguments)
    if isinstance(result, jax.Array):
        result.block_until_ready()


def _training(model: str, optimizer: optax.GradientTransformation, steps: int) -> Program:
    dataset = mnist5k.load()
    workload = workloads.create(MODELS[model], dataset)
    step = jax.jit(training.train_step(workload, optimizer), donate_argnums=0)
    batch = jax.device_put(next(dataset.epoch_batches(seed=0, epoch=1, batch_size=256)))
    scored = jax.device_put(next(dataset.epoch_batches(seed=0, epoch=0, batch_size=512)))
    params, model_state = workload.init(0)
    carry = [training.TrainState(params, model_state, optimizer.init(params))]

    def program():
        for _ in range(steps):
            carry[0] = step(carry[0], batch, scored)
        jax.block_until_ready(carry)

    for _ in range(max(1, _WARM_UP // 2)):
        program()
    return program

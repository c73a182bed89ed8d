"""What PDT costs: an event, an ordinary step, an epoch, each beside what it is compared with.

The programs of a comparison are timed in turn, round after round, so that whatever slows the
machine slows all of them; medians over the rounds and ratios are printed and kept.

  python -m experiments.benchmarks.events --run_dir=experiments/results/bench
"""

from collections.abc import Callable, Mapping
import functools
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import cli
from experiments.benchmarks import report, textbook
from experiments.data import mnist5k
from experiments.models import MODELS
from experiments.runs import workloads
from experiments.runs.step import TrainState, train_step
from experiments.settings import Config, setting
import pdt_optax

Program = Callable[[], Any]  # Does it once and waits for the result.
OPTIMIZERS: Mapping[str, optax.GradientTransformation] = {
    "fcn": optax.sgd(0.3),
    "cnn": optax.adamw(0.005),
    "vit": optax.adamw(0.005),
}
_NEVER = 10**9
_COLUMNS = 1000
_WARM_UP = 12
_SLOW = 2.0  # Seconds: what takes longer is timed in three rounds.


class Settings(Config):
    """What is timed, and where the records go."""

    run_dir: str = setting("runs/bench", "Folder of the records and the picture.")
    sizes: tuple[int, ...] = setting(
        (100_000, 1_000_000, 4_000_000, 25_000_000, 100_000_000),
        "Numbers of coordinates of an event, multiples of 1000.",
        least=_COLUMNS,
    )
    textbook_to: int = setting(25_000_000, "Most coordinates of the textbook events.", least=0)
    models: tuple[str, ...] = setting(tuple(OPTIMIZERS), "Whose steps are timed.", of=OPTIMIZERS)
    rounds: int = setting(15, "Rounds of each comparison.", least=1)

    def __post_init__(self):
        super().__post_init__()
        if any(size % _COLUMNS for size in self.sizes):
            raise ValueError(f"`sizes` must be multiples of {_COLUMNS}, got {self.sizes}.")


def main(config: Settings) -> None:
    """Runs the program; comparisons that are recorded already are skipped."""
    done = cli.rows(config.run_dir, {"rounds": config.rounds})
    comparisons: list[tuple[str, Any]] = [("event", size) for size in config.sizes]
    comparisons += [(kind, model) for kind in ("step", "epoch") for model in config.models]
    for kind, of in comparisons:
        if not done.has({"kind": kind, "of": of}):
            print(f"{kind} {of}", flush=True)
            seconds = _timed(_programs(kind, of, config.textbook_to), config.rounds)
            done.append({"kind": kind, "of": of, "seconds": seconds})
    print("\n" + report.table(done.rows) + "\n")
    path = done.run_dir / report.PICTURE
    report.draw(done.rows).savefig(path)
    print(path)


def _timed(programs: Mapping[str, Program], rounds: int) -> dict[str, list[float]]:
    """The seconds of each round, by the program's name."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    order = list(programs)
    for turn in range(rounds):
        if turn == 3:
            order = [name for name in order if statistics.median(seconds[name]) <= _SLOW]
        order.reverse()
        for name in order:
            start = time.perf_counter()
            programs[name]()
            seconds[name].append(round(time.perf_counter() - start, 6))
    return seconds


def _programs(kind: str, of: Any, textbook_to: int) -> dict[str, Program]:
    if kind == "event":
        return _events(of, of <= textbook_to)
    optimizer = OPTIMIZERS[of]
    if kind == "step":  # No snapshot falls among them.
        every, number, more = _NEVER, 5, {}
    else:  # Of two epochs one ends in a blind prediction, or both in verified ones.
        every = mnist5k.load().steps_per_epoch(256)
        number, more = 2 * every, {"verified": pdt_optax.pdt(every, pdt_optax.Verify())}
    links = {"with PDT": pdt_optax.pdt(every), **more}
    chains = {name: optax.chain(optimizer, link) for name, link in links.items()}
    return {n: _training(of, tx, number) for n, tx in {"without": optimizer, **chains}.items()}


def _events(size: int, with_textbook: bool) -> dict[str, Program]:
    """The last step of a snapshot period with a prediction and without, copies, textbook events."""
    shape = (size // _COLUMNS, _COLUMNS)
    programs = {f"event, h = {h}": _period(shape, history=h, interval=0) for h in (5, 10)}
    programs["snapshot, h = 5"] = _period(shape, history=5, start=_NEVER)
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


def _period(shape: tuple[int, ...], **options: Any) -> Program:
    """By hand: there is no loss, the gradient is given."""
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
    """Six arrays read and six written; `report` scales it to the thirteen of an event at h = 5."""

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
    step = jax.jit(train_step(workload.loss, optimizer, workload.score), donate_argnums=0)
    batch = jax.device_put(next(dataset.epoch_batches(seed=0, epoch=1, batch_size=256)))
    scored = jax.device_put(next(dataset.epoch_batches(seed=0, epoch=0, batch_size=512)))
    params, model_state = workload.init(0)
    carry = [TrainState(params, model_state, optimizer.init(params))]

    def program():
        for _ in range(steps):
            carry[0] = step(carry[0], batch, scored)
        jax.block_until_ready(carry)

    for _ in range(max(1, _WARM_UP // 2)):
        program()
    return program


if __name__ == "__main__":
    cli.run(main, Settings)

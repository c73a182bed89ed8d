"""What PDT costs on one accelerator, beside the same training without it.

Seconds of compiling, of an ordinary step, of an event and of an epoch of 20 steps that ends with
one, of a fully connected network, a ViT-Base in bfloat16 and a physics-informed network of 10^6
weights, with each way of jumping. About four minutes on one GPU.

  python -m experiments.benchmarks.gpu --run_dir=experiments/results/gpu
"""

from collections.abc import Callable, Mapping
import dataclasses
import statistics
import sys
import time
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from experiments import cli
from experiments.models import fcn, vit
from experiments.reports import tables
from experiments.science import tasks
from experiments.settings import Config, setting
import pdt_optax

EPOCH = 20
"""Steps in a snapshot period."""
ADAM, SOLVE = "Adam", "Solve"
JUMPS: Mapping[str, Callable[..., Any]] = {
    "Extrapolate": lambda **_: pdt_optax.Extrapolate(start=1, interval=0),
    "Verify": lambda **_: pdt_optax.Verify(start=1),
    SOLVE: lambda chunk: pdt_optax.Solve(chunk=chunk),
}


class Settings(Config):
    """Where the records go, and how large the networks are."""

    run_dir: str = setting("runs/gpu", "Folder of the records.")
    networks: tuple[str, ...] = setting(
        ("fcn", "vit_base", "physics"), "What is trained.", of=("fcn", "vit_base", "physics")
    )
    rounds: int = setting(10, "Rounds, of which medians are taken.", least=1)
    scale: float = setting(1.0, "Of the widths: below 1 for a try on a CPU.", least=0)


@dataclasses.dataclass(frozen=True)
class Network:
    """Something to train.

    Attributes:
      params: weights to start from.
      loss: of weights.
      residuals: of weights, or None where the loss is not a sum of squares.
      chunk: directions that a solved jump pushes forward at a time.
    """

    params: Any
    loss: Callable[[Any], jax.Array]
    residuals: Callable[[Any], Any] | None = None
    chunk: int = 16


def _classifier(model: nnx.Module, image_shape: tuple[int, ...], rows: int, chunk: int) -> Network:
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    images = jax.random.normal(jax.random.key(1), (rows, *image_shape))
    labels = jnp.arange(rows) % 10

    def loss(params: Any) -> jax.Array:
        logits = nnx.merge(graph, params, rest)(images).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return Network(nnx.to_pure_dict(params), loss, chunk=chunk)


def _make(name: str, scale: float) -> Network:
    rngs = nnx.Rngs(0)
    if name == "fcn":
        model = fcn.FCN((28, 28, 1), 10, width=scale, rngs=rngs)
        return _classifier(model, (28, 28, 1), 256, 16)
    if name == "vit_base":
        size = vit.BASE if scale == 1 else vit.BASE.scaled(scale, scale)
        side = 224 if scale == 1 else 32
        model = vit.ViT((side, side, 3), 10, size=size, dtype=jnp.bfloat16, rngs=rngs)
        return _classifier(model, (side, side, 3), 64 if scale == 1 else 4, 2)
    task = tasks.make("poisson", width=max(4, round(706 * scale)), depth=3)
    residuals = task.residuals
    assert residuals is not None
    return Network(
        task.init(jax.random.key(0)),
        lambda params: task.value(params, task.points),
        lambda params: residuals(params, task.points),
    )


def main(config: Settings) -> None:
    """Runs the program; what is recorded is not run again."""
    device = jax.devices()[0].device_kind
    rows = cli.rows(
        config.run_dir, {"device": device, "rounds": config.rounds, "scale": config.scale}
    )
    for name in config.networks:
        network = _make(name, config.scale)
        for way in (ADAM, *JUMPS):
            key = {"network": name, "way": way}
            if not rows.has(key):
                print(f"{name}, {way} ...", file=sys.stderr, flush=True)
                rows.append(key | _measured(network, way, config.rounds))
    print("\n" + table(cli.read_rows(config.run_dir)))


def _measured(network: Network, way: str, rounds: int) -> dict[str, Any]:
    def link(every: int) -> optax.GradientTransformation:
        if way == ADAM:
            return optax.identity()
        return pdt_optax.pdt(every, JUMPS[way](chunk=network.chunk))

    if way != SOLVE:
        network = dataclasses.replace(network, residuals=None)
    weights = sum(leaf.size for leaf in jax.tree.leaves(network.params))
    found: dict[str, Any] = {"weights": weights}
    seconds, found["compile"], found["temporaries"] = _timed(network, link(EPOCH), EPOCH, rounds)
    found["epoch"] = sum(statistics.median(step) for step in seconds)
    found["step"] = statistics.median(s for step in seconds[:-1] for s in step)
    if way != ADAM:
        seconds, *_ = _timed(network, link(1), 1, rounds)
        found["event"] = statistics.median(seconds[0]) - found["step"]
    return found


def _timed(
    network: Network, link: Any, period: int, rounds: int
) -> tuple[list[list[float]], float, int]:
    """Seconds of each step of a period, round after round; those of compiling; temporary bytes."""
    tx = optax.with_extra_args_support(optax.chain(optax.adam(1e-4), link))
    extra: dict[str, Any] = {"value_fn": network.loss}
    if network.residuals is not None:
        extra = {"residual_fn": network.residuals}

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = tx.update(jax.grad(network.loss)(params), state, params, **extra)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.copy, network.params)
    state = jax.jit(tx.init)(params)
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state).compile()
    compiling = time.perf_counter() - start
    seconds: list[list[float]] = [[] for _ in range(period)]
    for turn in range(rounds + 6):  # Six periods fill the history of a blind jump.
        for place in range(period):
            start = time.perf_counter()
            params, state = jax.block_until_ready(compiled(params, state))
            if turn >= 6:
                seconds[place].append(time.perf_counter() - start)
    temporaries = compiled.memory_analysis()
    return seconds, compiling, temporaries.temp_size_in_bytes if temporaries else 0


def table(rows: list[dict[str, Any]]) -> str:
    """Adam's seconds, and how many times as long each way of jumping takes; Markdown."""
    alone = {row["network"]: row for row in rows if row["way"] == ADAM}
    lines = []
    for row in rows:
        base = alone[row["network"]]
        ratios = [f"{row[name] / base[name]:.2f}" for name in ("compile", "step", "epoch")]
        event = f"{row['event'] / base['step']:.1f}" if "event" in row else ""
        step = f"{1e3 * base['step']:.3g}"
        names = [row["network"], f"{row['weights']:,}", row["way"]]
        lines.append([*names, f"{row['compile']:.1f}", step, *ratios, event])
    head = [
        "network",
        "weights",
        "way",
        "compile, s",
        "step of Adam, ms",
        "compile",
        "step",
        "epoch",
    ]
    return tables.grid([*head, "event, steps"], lines, labels=3)


if __name__ == "__main__":
    cli.run(main, Settings)

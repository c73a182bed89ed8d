"""How long the first step takes: tracing and compiling, beside the same step with Adam alone.

Each network is compiled with each way of jumping in turn, round after round, with empty caches.

  python -m experiments.benchmarks.compiling --run_dir=experiments/results/compiling
"""

from collections.abc import Mapping, Sequence
import itertools
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments import cli
from experiments.reports import tables
from experiments.settings import Config, setting
import pdt_optax

NETWORKS: Mapping[str, Sequence[int]] = {
    "2-32-32-1": (2, 32, 32, 1),
    "784-1024-512-256-10": (784, 1024, 512, 256, 10),
    "40 layers of 64": (64,) * 41,
}
ADAM, SOLVE = "Adam", "Solve"
LINKS: Mapping[str, Any] = {
    ADAM: None,
    "Extrapolate": pdt_optax.pdt(10),
    "Verify": pdt_optax.pdt(10, pdt_optax.Verify()),
    "Extrapolate, per leaf": pdt_optax.pdt(10, scope="leaf"),
    "Verify, per leaf": pdt_optax.pdt(10, pdt_optax.Verify(), scope="leaf"),
    SOLVE: pdt_optax.pdt(10, pdt_optax.Solve()),
}


class Settings(Config):
    """Where the records go, and how many."""

    run_dir: str = setting("runs/compiling", "Folder of the records.")
    rounds: int = setting(5, "Rounds, of which medians are taken.", least=1)
    table: bool = setting(False, "Only print the table of the records, in Markdown.")


def main(config: Settings) -> None:
    """Runs the program; networks that are recorded already are skipped."""
    if not config.table:
        _measure(config)
    print("\n" + table(cli.read_rows(config.run_dir)))


def _measure(config: Settings) -> None:
    done = cli.rows(config.run_dir, {"rounds": config.rounds})
    for network in [name for name in NETWORKS if not done.has({"network": name})]:
        print(f"{network} ...", file=sys.stderr, flush=True)
        seconds: dict[str, list[list[float]]] = {name: [] for name in LINKS}
        for _ in range(config.rounds):
            for name in LINKS:
                seconds[name].append(traced_and_compiled(NETWORKS[network], name))
        leaves = 2 * (len(NETWORKS[network]) - 1)
        done.append({"network": network, "leaves": leaves, "seconds": seconds})


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Seconds with Adam alone, and how many times as long a step with PDT takes; Markdown."""
    links = [name for name in rows[0]["seconds"] if name != ADAM]
    lines = []
    for row in rows:
        found = {n: statistics.median(map(sum, rounds)) for n, rounds in row["seconds"].items()}
        ratios = [f"{found[name] / found[ADAM]:.1f}" for name in links]
        lines.append([row["network"], str(row["leaves"]), f"{found[ADAM]:.2f}", *ratios])
    return tables.grid(["network", "leaves", "Adam, s", *links], lines, labels=1)


def traced_and_compiled(widths: Sequence[int], name: str) -> list[float]:
    """Seconds of tracing and lowering, and of compiling, one training step with that link."""
    adam, link = optax.adam(1e-3), LINKS[name]
    tx = optax.with_extra_args_support(adam if link is None else optax.chain(adam, link))
    params = [
        {
            "kernel": jax.ShapeDtypeStruct(pair, jnp.float32),
            "bias": jax.ShapeDtypeStruct(pair[1:], jnp.float32),
        }
        for pair in itertools.pairwise(widths)
    ]
    batch = [jax.ShapeDtypeStruct((32, width), jnp.float32) for width in (widths[0], widths[-1])]

    def step(params, state, inputs, targets):
        """By hand: nothing but the optimizer beside the gradient, as the records are."""
        grads = jax.grad(_loss)(params, inputs, targets)
        extra: dict[str, Any] = {"value_fn": lambda params: _loss(params, inputs, targets)}
        if name == SOLVE:
            extra = {"residual_fn": lambda params: _residuals(params, inputs, targets)}
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, params)
    jax.clear_caches()
    start = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, *batch)
    middle = time.perf_counter()
    lowered.compile()
    return [round(middle - start, 4), round(time.perf_counter() - middle, 4)]


def _loss(params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.mean(_residuals(params, inputs, targets) ** 2)


def _residuals(params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    *hidden, last = params
    for layer in hidden:
        inputs = jnp.tanh(inputs @ layer["kernel"] + layer["bias"])
    return inputs @ last["kernel"] + last["bias"] - targets


if __name__ == "__main__":
    cli.run(main, Settings)

"""How long the first step takes: tracing and compiling, beside the same step with Adam alone.

Each network is compiled with each way of jumping in turn, round after round, with empty caches.

Example:
  python -m experiments.benchmarks.compiling --run_dir=experiments/results/compiling
"""

from collections.abc import Mapping, Sequence
import itertools
import pathlib
import sys
import time
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
import optax

from experiments import cli
from experiments.benchmarks import compiling_report
from experiments.runs import records
import pdt_optax

_RUN_DIR = flags.DEFINE_string("run_dir", "runs/compiling", "Folder of the records.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds, of which medians are taken.", lower_bound=1)
_TABLE = flags.DEFINE_bool("table", False, "Only print the table of the records, in Markdown.")
NETWORKS: Mapping[str, Sequence[int]] = {
    "2-32-32-1": (2, 32, 32, 1),
    "784-1024-512-256-10": (784, 1024, 512, 256, 10),
    "40 layers of 64": (64,) * 41,
}
LINKS: Mapping[str, Any] = {
    compiling_report.ADAM: None,
    "Extrapolate": pdt_optax.pdt(10),
    "Verify": pdt_optax.pdt(10, pdt_optax.Verify()),
    "Extrapolate, per leaf": pdt_optax.pdt(10, scope="leaf"),
    "Verify, per leaf": pdt_optax.pdt(10, pdt_optax.Verify(), scope="leaf"),
}


def main() -> None:
    """Runs the program; networks that are recorded already are skipped."""
    run_dir = pathlib.Path(_RUN_DIR.value)
    if not _TABLE.value:
        _measure(run_dir)
    try:
        print("\n" + compiling_report.table(records.read_rows(run_dir)))
    except OSError as error:
        sys.exit(f"flag --run_dir={run_dir}: {error}")


def _measure(run_dir: pathlib.Path) -> None:
    try:
        records.resume(run_dir, {"rounds": _ROUNDS.value})
    except (ValueError, OSError) as error:
        sys.exit(f"flag --run_dir={run_dir}: {error}")
    done = {row["network"] for row in records.read_rows(run_dir)}
    for network in [name for name in NETWORKS if name not in done]:
        print(f"{network} ...", file=sys.stderr, flush=True)
        seconds: dict[str, list[list[float]]] = {name: [] for name in LINKS}
        for _ in range(_ROUNDS.value):
            for name in LINKS:
                seconds[name].append(traced_and_compiled(NETWORKS[network], LINKS[name]))
        leaves = 2 * (len(NETWORKS[network]) - 1)
        records.append_row(run_dir, {"network": network, "leaves": leaves, "seconds": seconds})


def traced_and_compiled(widths: Sequence[int], link: Any) -> list[float]:
    """Seconds of tracing and lowering, and of compiling, one training step."""
    adam = optax.adam(1e-3)
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
        grads = jax.grad(_loss)(params, inputs, targets)
        updates, state = tx.update(
            grads, state, params, value_fn=lambda params: _loss(params, inputs, targets)
        )
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, params)
    jax.clear_caches()
    start = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, *batch)
    middle = time.perf_counter()
    lowered.compile()
    return [round(middle - start, 4), round(time.perf_counter() - middle, 4)]


def _loss(params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    *hidden, last = params
    for layer in hidden:
        inputs = jnp.tanh(inputs @ layer["kernel"] + layer["bias"])
    return jnp.mean((inputs @ last["kernel"] + last["bias"] - targets) ** 2)


if __name__ == "__main__":
    cli.run(main)

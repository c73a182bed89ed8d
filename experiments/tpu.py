"""Compiles whole train steps of vision transformers for TPU slices, on a machine without a TPU.

Each is one step, compiled by the TPU's own compiler: forward, backward, AdamW and PDT, sharded over
all devices of the slice. The blocks are stacked, and each stack has a fit of its own; with --noscan
each block has one, and compiling takes many times as long. For each device it prints arguments,
temporaries and peak beside the memory there is, the seconds of compiling on all cores together, and
the collectives by kind; the table tells what PDT adds to the same step without it. A step that is
recorded is not compiled again.

Example:
  make tpu
  python -m experiments.tpu --only=vit_huge14/v5e:4x4 --links=none,bfloat16
  python -m experiments.tpu --table
"""

from collections.abc import Callable
import dataclasses
import importlib.metadata
import itertools
import os
import re
import sys
import time
from typing import Any

import jax
import optax

from experiments import cli
from experiments.benchmarks.tpu import cases, hlo, step
from experiments.benchmarks.tpu.cases import CASES, IRE, LINKS, NONE, SIZES, Case
from experiments.settings import Config, setting
import pdt_optax


class Settings(Config):
    """What is compiled, and where the records go."""

    only: tuple[str, ...] = setting((), "Cases; all if none.", of=list(map(str, CASES)))
    links: tuple[str, ...] = setting(
        tuple(LINKS), "What follows AdamW; for PDT its history_dtype.", of=LINKS
    )
    scan: bool = setting(True, "Whether the blocks of a model are stacked.")
    update_only: bool = setting(
        False, "Whether only the optimizer's part is compiled, from given gradients."
    )
    minutes: float | None = setting(None, "Begin no step after this time.", least=0)
    table: bool = setting(False, "Only print the table of the records, in Markdown.")
    run_dir: str = setting("runs/tpu", "Folder of the records.")


def main(config: Settings) -> None:
    """Runs the program."""
    if not config.table:
        _compile_all(config)
    print(cases.table(cli.read_rows(config.run_dir)))


def _compile_all(config: Settings) -> None:
    _prepare()
    try:
        version = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        sys.exit("libtpu is not installed: pip install '.[tpu]', or make tpu.")
    done = cli.rows(config.run_dir, {"libtpu": version})
    start = time.monotonic()
    for case, link in itertools.product(CASES, config.links):
        how = {"scan": config.scan, "update_only": config.update_only}
        late = config.minutes is not None and time.monotonic() - start > 60 * config.minutes
        left_out = config.only and str(case) not in config.only
        if late or left_out or (link == IRE and case.model != "vit_base16"):
            continue
        if done.has({"model": case.model, "slice": case.slice, "link": link, **how}):
            continue
        print(f"{case} {LINKS[link]} ...", file=sys.stderr, flush=True)
        row = compile_case(case, link, **how)
        done.append(row)
        text = row.get("error") or "  " + " ".join(cases.needs_cells(row, None))
        print(text, file=sys.stderr, flush=True)


def _prepare() -> None:
    """Lets the TPU's compiler be loaded where there is no TPU."""
    jax.config.update("jax_platforms", "cpu")
    for name, value in {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }.items():
        os.environ.setdefault(name, value)


def compile_case(case: Case, link: str, *, scan: bool, update_only: bool) -> dict[str, Any]:
    """Compiles one step.

    Args:
      case: model and slice.
      link: of `LINKS`.
      scan: whether the blocks are stacked.
      update_only: whether the gradients are given.

    Returns:
      A row of JSON values; what does not fit or compile has `error` in place of its needs.
    """
    mesh = step.mesh_of_topology(case.slice)
    train_step = step.vit_step(
        mesh,
        _link(link, "leaf" if scan else step.layers),
        size=SIZES[case.model],
        batch_size=case.images * mesh.size,
        remat=case.remat,
        scan=scan,
        update_only=update_only,
    )
    params = jax.tree.leaves(train_step.arguments[0])
    row = {
        **case._asdict(),
        "scan": scan,
        "update_only": update_only,
        "link": link,
        "devices": mesh.size,
        "parameters": sum(leaf.size for leaf in params),
    }
    begin = time.process_time()
    try:
        program = train_step.function.lower(*train_step.arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        return {**row, "error": str(error).splitlines()[0]}
    row["compile_seconds"] = round(time.process_time() - begin, 1)
    foreign = sorted(set(re.findall(r'custom_call_target="([^"]*)"', program.as_text())))
    return {**row, "custom_calls": foreign, **dataclasses.asdict(hlo.needs(program))}


def _link(name: str, scope: Any) -> Callable[[step.Apply], optax.GradientTransformation] | None:
    if name == NONE:
        return None
    if name == IRE:
        return lambda apply: pdt_optax.ire.scale_by_ire(
            4.0,
            warmup_steps=1000,
            curvature_fn=pdt_optax.ire.sampled_label_fisher(apply, jax.random.key(0)),
        )
    link = pdt_optax.pdt(1000, scope=scope, history_dtype=name)
    return lambda _: link


if __name__ == "__main__":
    cli.run(main, Settings)

"""Compiles whole train steps of vision transformers for TPU slices, on a machine without a TPU.

Each is one step, compiled by the TPU's own compiler: forward, backward, AdamW and PDT, sharded over
all devices of the slice. The blocks are stacked, and each stack has a fit of its own; with --noscan
each block has one, and compiling takes many times as long. For each device it prints arguments,
temporaries and peak beside the memory there is, and the collectives by kind; the table tells what
PDT adds to the same step without it. A step that is recorded is not compiled again.

Example:
  make tpu
  python -m experiments.tpu --only=vit_huge14/v5e:4x4 --links=none,bfloat16
  python -m experiments.tpu --table
"""

from collections.abc import Callable
import dataclasses
import importlib.metadata
import os
import pathlib
import re
import sys
import time
from typing import Any

from absl import flags
import jax
import optax

from experiments import cli
from experiments.benchmarks.tpu import cases, hlo, step
from experiments.benchmarks.tpu.cases import CASES, IRE, LINKS, NONE, SIZES, Case
from experiments.runs import records
import pdt_optax

_ONLY = flags.DEFINE_multi_enum("only", None, [str(case) for case in CASES], "Cases; all if none.")
_LINKS = flags.DEFINE_list(
    "links", list(LINKS), f"What follows AdamW: {', '.join(LINKS)}; for PDT its history_dtype."
)
_SCAN = flags.DEFINE_bool("scan", True, "Whether the blocks of a model are stacked.")
_UPDATE_ONLY = flags.DEFINE_bool(
    "update_only", False, "Whether only the optimizer's part is compiled, from given gradients."
)
_MINUTES = flags.DEFINE_float("minutes", None, "Begin no step after this time.", lower_bound=0)
_TABLE = flags.DEFINE_bool("table", False, "Only print the table of the records, in Markdown.")
_RUN_DIR = flags.DEFINE_string("run_dir", "runs/tpu", "Folder of the records.")
flags.register_validator(
    "links", lambda links: set(links) <= {*LINKS}, f"must be of {', '.join(LINKS)}."
)


def main() -> None:
    """Runs the program."""
    run_dir = pathlib.Path(_RUN_DIR.value)
    if not _TABLE.value:
        _compile_all(run_dir)
    try:
        rows = records.read_rows(run_dir)
    except OSError as error:
        sys.exit(f"flag --run_dir: {error}")
    print(cases.table(rows))


def _compile_all(run_dir: pathlib.Path) -> None:
    _prepare()
    try:
        records.resume(run_dir, {"libtpu": importlib.metadata.version("libtpu")})
    except importlib.metadata.PackageNotFoundError:
        sys.exit("libtpu is not installed: pip install '.[tpu]', or make tpu.")
    except (OSError, ValueError) as error:
        sys.exit(f"flag --run_dir: {error}")
    known = ("model", "slice", "scan", "update_only", "link")
    done = {tuple(row[name] for name in known) for row in records.read_rows(run_dir)}
    start = time.monotonic()
    for case in CASES:
        for link in _LINKS.value:
            step = (case.model, case.slice, _SCAN.value, _UPDATE_ONLY.value, link)
            late = _MINUTES.value is not None and time.monotonic() - start > 60 * _MINUTES.value
            if late or step in done:
                continue
            if _ONLY.value and str(case) not in _ONLY.value:
                continue
            if link == IRE and case.model != "vit_base16":
                continue
            print(f"{case} {LINKS[link]} ...", file=sys.stderr, flush=True)
            row = compile_case(case, link, scan=_SCAN.value, update_only=_UPDATE_ONLY.value)
            records.append_row(run_dir, row)
            if "error" in row:
                print(row["error"], file=sys.stderr, flush=True)
            else:
                print(f"  {' '.join(cases.cells(row, None)[4:8])} ", file=sys.stderr, flush=True)


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
    begin = time.monotonic()
    try:
        program = train_step.function.lower(*train_step.arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        return {**row, "error": str(error).splitlines()[0]}
    row["compile_seconds"] = round(time.monotonic() - begin, 1)
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
    cli.run(main)

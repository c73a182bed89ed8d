"""Which step is compiled for which slice of TPUs, and the table of what each needs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.models import vit
from experiments.reports import tables


class Case(NamedTuple):
    """What is compiled: a model of `SIZES` on a slice of `MEMORY`.

    Attributes:
      model: its name.
      slice: generation and devices.
      images: batch size of one device.
      remat: whether the activations of a block are computed anew in the backward pass.
    """

    model: str
    slice: str
    images: int
    remat: bool = False

    def __str__(self) -> str:
        return f"{self.model}/{self.slice}"


SIZES = {"vit_base16": vit.BASE, "vit_huge14": vit.HUGE}
MEMORY = {"v5e": 15.75, "v5p": 95.74}  # GiB of a device that the compiler lets programs have
CASES = (
    Case("vit_base16", "v5e:2x4", images=64, remat=True),
    Case("vit_huge14", "v5e:2x2", images=32, remat=True),
    Case("vit_huge14", "v5e:4x4", images=32, remat=True),
    Case("vit_huge14", "v5p:4x4x4", images=64, remat=True),
)
NONE, IRE = "none", "ire"
LINKS = {
    NONE: "without PDT",
    "float32": "PDT",
    "bfloat16": "PDT, bfloat16",
    "int8": "PDT, int8",
    IRE: "IRE",
}
GIB = 2**30


_STEP = ("model", "slice", "images per device", "AdamW")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns two tables in Markdown: memory and compile time, and collectives."""
    bases = {_step(row): row for row in rows if row["link"] == NONE and "error" not in row}
    memory = ("compile s", "arguments GiB", "temporaries GiB", "peak GiB", "of memory %")
    pairs = [(row, bases.get(_step(row)) if row["link"] != NONE else None) for row in _sorted(rows)]
    needs = [[*_start(row), *needs_cells(row, base)] for row, base in pairs]
    sent = [[*_start(row), *_sent_cells(row, base)] for row, base in pairs if "error" not in row]
    return "\n\n".join(
        [
            tables.grid([*_STEP, *memory, "added peak GiB"], needs, labels=4),
            tables.grid([*_STEP, "collectives", "added collectives"], sent, labels=6),
        ]
    )


def _step(row: dict[str, Any]) -> tuple[str, str, bool, bool]:
    return row["model"], row["slice"], row["scan"], row["update_only"]


def _sorted(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    cases = [(case.model, case.slice) for case in CASES]

    def place(row: dict[str, Any]) -> tuple[int, bool, bool, int]:
        model, name, scan, update_only = _step(row)
        return cases.index((model, name)), scan, update_only, list(LINKS).index(row["link"])

    return sorted(rows, key=place)


def _start(row: dict[str, Any]) -> list[str]:
    images = f"{row['images']}{', remat' if row['remat'] else ''}"
    if row["update_only"]:
        images = "update alone"
    model = row["model"] + ("" if row["scan"] else ", blocks one by one")
    return [model, f"{row['slice']} ({row['devices']})", images, LINKS[row["link"]]]


def needs_cells(row: dict[str, Any], base: dict[str, Any] | None) -> list[str]:
    """Returns seconds of compiling and memory of a row; the last is what it adds to `base`."""
    if "error" in row:
        fits = "RESOURCE_EXHAUSTED" not in row["error"]
        return ["", "", "", "compiler error" if fits else "does not fit", "", ""]
    memory = MEMORY[row["slice"].split(":")[0]]
    cells = [f"{row['compile_seconds']:.0f}"]
    cells += [f"{row[name] / GIB:.2f}" for name in ("arguments", "temporaries", "peak")]
    cells += [f"{100 * row['peak'] / GIB / memory:.0f}"]
    if base is None:
        return [*cells, ""]
    return [*cells, f"{(row['peak'] - base['peak']) / GIB:+.2f}"]


def _sent_cells(row: dict[str, Any], base: dict[str, Any] | None) -> list[str]:
    sent = {kind: (each["count"], each["size"]) for kind, each in row["collectives"].items()}
    if base is None:
        return [_traffic(sent), ""]
    more = {}
    for kind in {**sent, **base["collectives"]}:
        count, size = sent.get(kind, (0, 0))
        before = base["collectives"].get(kind, {"count": 0, "size": 0})
        more[kind] = (count - before["count"], size - before["size"])
    return [_traffic(sent), _traffic(more, "+")]


def _traffic(sent: Mapping[str, tuple[int, int]], sign: str = "") -> str:
    """Count and size of each kind, those that are not zero."""
    return ", ".join(
        f"{count:{sign}} {kind} ({_readable(size)})"
        for kind, (count, size) in sent.items()
        if count or size
    )


def _readable(size: int) -> str:
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if abs(size) >= 1024**power:
            return f"{size / 1024**power:.1f} {unit}"
    return f"{size} B"

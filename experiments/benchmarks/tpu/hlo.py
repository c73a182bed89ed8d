"""What a compiled program asks of each device: memory, and what it sends to the others."""

from collections.abc import Mapping
import dataclasses
import math
import re
from typing import Any

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_OPERATION = re.compile(rf" = (.*?) ({'|'.join(COLLECTIVES)})(-start)?\((.*)")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_SCATTERS = 'from-cross-replica-sharding="true"'  # how a TPU's program marks a reduce-scatter
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)[a-z0-9]*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind, as they stand in the program: the body of a loop counts once.

    Attributes:
      count: operations.
      size: bytes of their results on one device; of a reduce-scatter, before it is scattered.
      largest: bytes of the largest result.
    """

    count: int
    size: int
    largest: int


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a program asks of one device, in bytes.

    Attributes:
      arguments: parameters, optimizer state and batch.
      temporaries: what the program holds beside its arguments and results.
      peak: arguments, results that do not take the place of an argument, temporaries and code.
      collectives: what is sent, by kind.
    """

    arguments: int
    temporaries: int
    peak: int
    collectives: Mapping[str, Traffic]


def needs(compiled: Any) -> Needs:
    """Reads a program compiled by jax."""
    memory = compiled.memory_analysis()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    arguments, temporaries = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    peak = arguments + results + temporaries + memory.generated_code_size_in_bytes
    return Needs(arguments, temporaries, peak, collectives(compiled.as_text()))


def collectives(text: str) -> dict[str, Traffic]:
    """Counts the collectives of a program in XLA's text form.

    What a TPU's program does piece by piece beside other work counts once: its channel tells.
    """
    sizes: dict[str, dict[str, int]] = {}
    for shapes, kind, asynchronous, rest in _OPERATION.findall(text):
        arrays = [_size(int(bits or 8), dims) for _, bits, dims in _ARRAY.findall(shapes)]
        if asynchronous and kind != "all-reduce":
            arrays = arrays[len(arrays) // 2 :]  # operands come first, then results
        channels = sizes.setdefault("reduce-scatter" if _SCATTERS in rest else kind, {})
        channel = _CHANNEL.search(rest)
        name = channel[1] if channel else f"none {len(channels)}"
        channels[name] = max(channels.get(name, 0), sum(arrays))
    return {
        kind: Traffic(len(sizes[kind]), sum(sizes[kind].values()), max(sizes[kind].values()))
        for kind in COLLECTIVES
        if kind in sizes
    }


def _size(bits: int, dims: str) -> int:
    return math.prod(map(int, filter(None, dims.split(",")))) * bits // 8

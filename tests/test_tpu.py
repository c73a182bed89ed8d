"""The whole train step for TPUs and GPUs that are not there, and what it needs of them."""

import dataclasses
import math
import pathlib
import re

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pages
import pytest

from experiments import cli, tpu
from experiments.benchmarks.tpu import cases, hlo
from experiments.benchmarks.tpu import step as tpu_step
from experiments.models import vit
from experiments.runs import records
from experiments.runs.devices import AXIS, mesh_of
import pdt_optax

ROOT = pathlib.Path(__file__).parent.parent
TINY = vit.Size(patch=8, depth=1, width=64, heads=2, mlp=256)


@pytest.fixture(scope="module")
def step():
    link = pdt_optax.pdt(10, scope=tpu_step.layers, history_dtype="bfloat16")
    mesh = mesh_of(jax.devices())
    shape = {"image_shape": (16, 16, 3), "num_classes": 10, "batch_size": 16}
    return tpu_step.vit_step(mesh, lambda _: link, size=TINY, remat=True, **shape)


@pytest.mark.parametrize("platforms", [("cuda",), ("tpu",), ("cuda", "tpu")], ids="-".join)
def test_step_lowers_to_what_every_platform_has(step, platforms):
    """Eigenvalues and singular values are not there on a TPU."""
    text = step.function.trace(*step.arguments).lower(lowering_platforms=platforms).as_text()
    assert "stablehlo.while" in text
    assert not re.findall(r"custom_call @(\w+)", text)


def test_labels_of_layers(step):
    labels = set(jax.tree.leaves(tpu_step.layers(step.arguments[0])))
    assert labels == {"embed", "class_token", "positions", "blocks/0", "norm", "logits"}


def test_stacked_blocks_are_those_one_by_one():
    options = {"image_shape": (16, 16, 3), "num_classes": 10, "rngs": nnx.Rngs(0)}
    plain = vit.ViT(**options, size=dataclasses.replace(TINY, depth=2))
    stacked = vit.ViT(**options, size=dataclasses.replace(TINY, depth=2), scan=True, remat=True)
    params = nnx.to_pure_dict(nnx.state(plain))
    blocks = params["blocks"]
    params["blocks"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), blocks[0], blocks[1])
    images = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    apply = jax.jit(lambda graph, params: nnx.merge(graph, params)(images), static_argnums=0)
    logits = apply(nnx.graphdef(stacked), params)
    expected = apply(nnx.graphdef(plain), nnx.to_pure_dict(nnx.state(plain)))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_vit_huge_with_pdt_is_split_over_a_mesh():
    """632 M parameters: each device holds its share of weights, AdamW and five snapshots."""
    mesh = mesh_of(jax.devices())
    link = pdt_optax.pdt(10, scope=tpu_step.layers, history_dtype="bfloat16")
    step = tpu_step.vit_step(mesh, lambda _: link, size=vit.HUGE, scan=True, batch_size=8)
    params, state, *_ = step.arguments
    number = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert number == 632_045_800

    def share(leaf):
        return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize

    held = sum(map(share, jax.tree.leaves((params, state))))
    bytes_per_parameter = 4 + 8 + 4 + 4 * 2  # weights, AdamW, anchor, increments
    assert held == pytest.approx(number * bytes_per_parameter / 8, rel=0.01)


def test_small_leaves_are_not_gathered_from_rows():
    """Replicated weights and biases are laid in rows without asking other devices for them.

    Left is what the compiler does to biases whose gradients it splits: gathered twice each.
    """
    size = dataclasses.replace(TINY, depth=2)
    shape = {"image_shape": (16, 16, 3), "num_classes": 10, "batch_size": 16}

    def sent(link):
        step = tpu_step.vit_step(mesh_of(jax.devices()), link, size=size, remat=True, **shape)
        return hlo.collectives(step.function.lower(*step.arguments).compile().as_text())

    nothing = hlo.Traffic(0, 0, 0)
    without, with_pdt = sent(None), sent(lambda _: pdt_optax.pdt(10, scope="leaf"))
    gathered = with_pdt["all-gather"].count - without["all-gather"].count
    assert gathered <= 2 * size.depth
    permuted = "collective-permute"
    assert with_pdt.get(permuted, nothing).count <= without.get(permuted, nothing).count


TEXT = """
  %a = f32[4,2]{1,0} all-reduce(%x), channel_id=1
  %b = (f32[]{:T(128)}, s32[3]{0}) all-reduce(%y, %z), channel_id=2
  %c = (bf16[8]{0}, bf16[64]{0:T(1024)S(1)}) all-gather-start(%w), channel_id=3
  %d = bf16[64]{0} all-gather-done(%c)
  %e = (s8[2]{0}, pred[5]{0}) all-to-all(%v, %u), channel_id=4
  %g = f32[64]{0} all-gather(%t), channel_id=5, dimensions={0}
  %h = f32[64]{0:S(1)} all-gather(%s), channel_id=5, dimensions={0}
  %i = f32[16]{0} all-reduce(%r), channel_id=6, attributes={from-cross-replica-sharding="true"}
  %f = f32[9]{0} fusion(%all-reduce.1), kind=kLoop
"""


def test_collectives_of_a_text():
    assert hlo.collectives(TEXT) == {
        "all-reduce": hlo.Traffic(count=2, size=32 + 16, largest=32),
        "all-gather": hlo.Traffic(count=2, size=128 + 256, largest=256),
        "reduce-scatter": hlo.Traffic(count=1, size=64, largest=64),
        "all-to-all": hlo.Traffic(count=1, size=7, largest=7),
    }


def test_needs_of_a_program():
    mesh = mesh_of(jax.devices())
    split = jax.NamedSharding(mesh, jax.P(AXIS))
    x = jax.ShapeDtypeStruct((1024,), jnp.float32, sharding=split)
    needs = hlo.needs(jax.jit(lambda x: (x + 1, jnp.sum(x)), donate_argnums=0).lower(x).compile())
    assert needs.arguments == 4 * 1024 // 8
    assert needs.peak >= needs.arguments + needs.temporaries
    assert needs.collectives == {"all-reduce": hlo.Traffic(1, 4, 4)}


def recorded():
    """The rows of the records by model, slice, whether it is the update alone, and link."""
    names = ("model", "slice", "update_only", "link")
    return {
        tuple(row[name] for name in names): row for row in records.read_rows(pages.RESULTS / "tpu")
    }


def test_pdt_on_tpu_adds_small_all_reduces_only():
    """In the update alone two at an event, and a third in the first step of a period.

    In a whole step the compiler groups those of the gradients anew.

    Most with int8 increments of ViT-Huge: ten, of 39 KiB. Over 64 devices a block of these is
    longer than the part of a row that a device holds, and is gathered.
    """
    rows = recorded()
    cut = rows["vit_huge14", "v5p:4x4x4", False, "int8"]
    assert cut["collectives"]["all-gather"]["size"] < 2**24
    compared = {
        key: row
        for key, row in rows.items()
        if key[-1] not in (cases.NONE, cases.IRE) and row is not cut
    }
    assert {model for model, *_ in compared} == set(cases.SIZES)
    for (*step, _), row in compared.items():
        before = rows[*step, cases.NONE]["collectives"]
        for kind, sent in row["collectives"].items():
            base = before.get(kind, {"count": 0, "size": 0})
            many = (row["model"], row["link"]) == ("vit_huge14", "int8")
            whole = (10, 40 * 1024) if many else (5, 2**15)
            most = (3, 1024) if row["update_only"] else whole
            most = most if kind == "all-reduce" else (0, 0)
            added = (sent["count"] - base["count"], sent["size"] - base["size"])
            assert all(more <= limit for more, limit in zip(added, most, strict=True))
        assert not re.search("eig|svd|partition", " ".join(row["custom_calls"]), re.IGNORECASE)


def test_a_narrower_history_needs_less_memory():
    rows = recorded()
    for model, name, is_update, link in rows:
        if link == "bfloat16":
            wide = rows[model, name, is_update, "float32"]
            assert rows[model, name, is_update, link]["peak"] < wide["peak"]


def test_vit_huge_with_pdt_fits_four_devices_of_16_gib():
    peak = recorded()["vit_huge14", "v5e:2x2", False, "float32"]["peak"] / cases.GIB
    assert peak < 0.7 * cases.MEMORY["v5e"]


def test_an_unknown_link_is_a_short_error():
    with pytest.raises(SystemExit, match=r"`links` must be of none, float32, .*; got 'int4'"):
        cli.parsed(["--links=int4"], tpu.Settings)

"""A whole train step on a mesh of devices, as shapes: to be lowered and compiled, not run."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

from flax import nnx
import jax
from jax.experimental import topologies
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import optax

from experiments.models import vit
from experiments.runs.devices import AXIS, fully_sharded, mesh_of
import pdt_optax

Apply = Callable[[Any, jax.Array], jax.Array]


class Step(NamedTuple):
    """A train step, or its last part, and the shapes of its arguments.

    Attributes:
      function: jitted (parameters, optimizer state, images, labels) -> (parameters, optimizer
        state, loss), or without a forward and backward pass (parameters, optimizer state,
        gradients) -> (parameters, optimizer state); the first two are donated.
      arguments: shapes with shardings.
    """

    function: Any
    arguments: tuple[Any, ...]


def mesh_of_topology(name: str) -> Mesh:
    """A mesh of one axis over the devices of a TPU slice such as 'v5e:2x4', without having it."""
    return mesh_of(topologies.get_topology_desc(name, platform="tpu").devices)


def vit_step(
    mesh: Mesh,
    link: Callable[[Apply], optax.GradientTransformation] | None,
    *,
    size: vit.Size,
    image_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    batch_size: int,
    dtype: Any = jnp.bfloat16,
    remat: bool = False,
    scan: bool = False,
    update_only: bool = False,
) -> Step:
    """Forward, backward, AdamW and `link`, fully sharded.

    By hand: the update alone is compiled as well, and the loss is a result.

    Parameters and all that the optimizer holds for them are split over all devices, and so is the
    batch.

    Args:
      mesh: of one axis.
      link: from the model, a function (parameters, images) -> logits, to the last link of the
        optimizer; None for none.
      size: of the vision transformer.
      image_shape: height, width, channels.
      num_classes: number of classes.
      batch_size: images in a batch, of all devices.
      dtype: of the activations.
      remat: whether activations are computed anew in the backward pass.
      scan: whether the blocks are stacked.
      update_only: whether the gradients are given.

    Returns:
      The step.
    """
    batch = NamedSharding(mesh, PartitionSpec(AXIS))
    options = {
        "size": size,
        "dtype": dtype,
        "remat": remat,
        "scan": scan,
        "constrain": functools.partial(jax.lax.with_sharding_constraint, shardings=batch),
    }

    def build() -> nnx.Module:
        return vit.ViT(image_shape, num_classes, **options, rngs=nnx.Rngs(0))

    graph, abstract = nnx.split(nnx.eval_shape(build))
    params = jax.tree.map(
        lambda leaf: _shape(leaf, fully_sharded(leaf, mesh)), nnx.to_pure_dict(abstract)
    )

    def apply(params, images):
        return nnx.merge(graph, params)(images)

    adamw = optax.adamw(optax.cosine_decay_schedule(1e-3, 10_000), weight_decay=0.1)
    tx = optax.chain(adamw, *([] if link is None else [link(apply)]))
    shardings = pdt_optax.state.state_shardings(tx, params)
    state = jax.tree.map(_shape, jax.eval_shape(tx.init, params), shardings)
    images = jax.ShapeDtypeStruct((batch_size, *image_shape), dtype, sharding=batch)
    labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32, sharding=batch)

    def update(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def step(params, state, images, labels):
        def loss(params):
            logits = apply(params, images)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, inputs=images)
        return optax.apply_updates(params, updates), state, value

    results = jax.tree.map(lambda leaf: leaf.sharding, (params, state))
    if update_only:
        function = jax.jit(update, donate_argnums=(0, 1), out_shardings=results)
        return Step(function, (params, state, params))
    replicated = NamedSharding(mesh, PartitionSpec())
    function = jax.jit(step, donate_argnums=(0, 1), out_shardings=(*results, replicated))
    return Step(function, (params, state, images, labels))


def layers(params: Any) -> Any:
    """A label for each leaf: its block, or its module outside the blocks."""

    def label(path: Any, _: Any) -> str:
        names = [str(key.key) for key in path]
        return "/".join(names[:2] if names[0] == "blocks" else names[:1])

    return jax.tree.map_with_path(label, params)


def _shape(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

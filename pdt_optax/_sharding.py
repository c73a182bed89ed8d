"""The optimizer state lies where the parameters lie."""

import math
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec
import optax


def state_shardings(tx: optax.GradientTransformation, params: Any) -> Any:
    """Shardings of the state of an optimizer, for ``jit``'s ``out_shardings``.

    What the state holds for each parameter, PDT's history of large leaves included, is sharded
    like the parameter where the mesh divides its shape; the rest is replicated.

    Args:
      tx: any optax transformation.
      params: arrays or :class:`jax.ShapeDtypeStruct`, all with a
        :class:`jax.sharding.NamedSharding`.

    Returns:
      A tree of shardings like ``tx.init(params)``.

    Raises:
      ValueError: if there are no parameters, or one has no ``NamedSharding``.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, pdt_optax
      >>> from jax.sharding import AxisType, NamedSharding, PartitionSpec
      >>> mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
      >>> sharding = NamedSharding(mesh, PartitionSpec("data"))
      >>> params = {"w": jax.device_put(jnp.ones(8), sharding)}
      >>> tx = optax.chain(optax.adam(1e-3), pdt_optax.pdt(snapshot_every=10))
      >>> shardings = pdt_optax.state.state_shardings(tx, params)
      >>> state = jax.jit(tx.init, out_shardings=shardings)(params)
      >>> state[0][0].mu["w"].sharding == sharding
      True
    """
    leaves = jax.tree.leaves_with_path(params)
    if not leaves:
        raise ValueError("`params` must have at least one leaf, got none.")
    for path, leaf in leaves:
        sharding = getattr(leaf, "sharding", None)
        if not isinstance(sharding, NamedSharding):
            raise ValueError(
                "`params` must have a jax.sharding.NamedSharding on every leaf, got "
                f"{sharding!r} at {jax.tree_util.keystr(path) or 'the root'}."
            )
    mesh = leaves[0][1].sharding.mesh
    replicated = NamedSharding(mesh, PartitionSpec())

    def is_masked(leaf):
        return isinstance(leaf, optax.MaskedNode)

    return optax.tree.map_params(
        tx,
        lambda leaf, param: leaf if is_masked(leaf) else _fitted(param.sharding, leaf.shape),
        jax.eval_shape(tx.init, params),
        params,
        transform_non_params=lambda _: replicated,
        is_leaf=is_masked,
    )


def _fitted(sharding: NamedSharding, shape: tuple[int, ...]) -> NamedSharding:
    """The sharding without the axes that do not divide the shape."""
    parts = []
    for size, part in zip(shape, sharding.spec, strict=False):
        names = part if isinstance(part, tuple) else () if part is None else (part,)
        parts.append(part if size % math.prod(sharding.mesh.shape[n] for n in names) == 0 else None)
    return sharding.update(spec=PartitionSpec(*parts))

"""The optimizer state lies where the parameters lie."""

import math
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec
import optax

from pdt_optax._state import PDTState

_HOST = "pinned_host"


def state_shardings(tx: optax.GradientTransformation, params: Any, *, offload: bool = False) -> Any:
    """Shardings of the state of an optimizer, for ``jit``'s ``out_shardings``.

    What the state holds for each parameter, PDT's history included, is sharded like
    the parameter where the mesh divides its shape; the rest is replicated.

    Args:
      tx: any optax transformation.
      params: arrays or :class:`jax.ShapeDtypeStruct`, all with a
        :class:`jax.sharding.NamedSharding`.
      offload: whether the increments of PDT's history lie in the pinned memory of the
        host. ``update`` fetches them for a prediction, and one at a time for a snapshot.

    Returns:
      A tree of shardings like ``tx.init(params)``.

    Raises:
      ValueError: if there are no parameters, one has no ``NamedSharding``, or to offload a
        device has no pinned memory of a host.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, pdt_optax
      >>> from jax.sharding import AxisType, NamedSharding, PartitionSpec
      >>> mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
      >>> sharding = NamedSharding(mesh, PartitionSpec("data"))
      >>> params = {"w": jax.device_put(jnp.ones(8), sharding)}
      >>> tx = optax.chain(optax.adam(1e-3), pdt_optax.pdt(snapshot_every=10))
      >>> shardings = pdt_optax.state_shardings(tx, params)
      >>> state = jax.jit(tx.init, out_shardings=shardings)(params)
      >>> state[-1].anchor["w"].sharding == sharding
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

    shardings = optax.tree.map_params(
        tx,
        lambda leaf, param: leaf if is_masked(leaf) else _fitted(param.sharding, leaf.shape),
        jax.eval_shape(tx.init, params),
        params,
        transform_non_params=lambda _: replicated,
        is_leaf=is_masked,
    )
    return _offloaded(shardings, mesh) if offload else shardings


def _offloaded(shardings: Any, mesh: Any) -> Any:
    """The same, the increments of PDT's history in the memory of the host."""
    try:
        NamedSharding(mesh, PartitionSpec(), memory_kind=_HOST)
    except ValueError as error:
        raise ValueError(
            f"`offload` must be False where a device has no {_HOST} memory, got True: {error}"
        ) from None

    def offloaded(node: Any) -> Any:
        if not isinstance(node, PDTState):
            return node
        on_host = [jax.tree.map(_on_host, increment) for increment in node.increments]
        return node._replace(increments=tuple(on_host))

    return jax.tree.map(offloaded, shardings, is_leaf=lambda node: isinstance(node, PDTState))


def _on_host(sharding: NamedSharding) -> NamedSharding:
    return sharding.with_memory_kind(_HOST)


def _fitted(sharding: NamedSharding, shape: tuple[int, ...]) -> NamedSharding:
    """The sharding without the axes that do not divide the shape."""
    parts = []
    for size, part in zip(shape, sharding.spec, strict=False):
        names = part if isinstance(part, tuple) else () if part is None else (part,)
        parts.append(part if size % math.prod(sharding.mesh.shape[n] for n in names) == 0 else None)
    return sharding.update(spec=PartitionSpec(*parts))

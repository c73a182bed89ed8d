"""Derivatives of the outputs: of single examples, along directions, and pulled back."""

from collections.abc import Callable, Iterator
import copy
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np

ApplyFn = Callable[[Any, jax.Array], jax.Array]
Leaves = list[jax.Array]
Sketch = Callable[[Leaves], Leaves]
_CHUNK_BYTES = 2**28
_CHUNK_SAMPLES = 256


class Network:
    """Outputs of examples as a function of the floating-point leaves of the parameters.

    Examples are taken in chunks of one size, spread over the local devices.

    Attributes:
      leaves: the floating-point leaves, in at least float32.
      inputs: ``(N, ...)``.
    """

    def __init__(self, apply_fn: ApplyFn, params: Any, inputs: np.ndarray):
        everything, structure = jax.tree.flatten(params)
        is_floating = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in everything]

        def apply(leaves: Leaves, x: jax.Array) -> jax.Array:
            found = iter(leaves)
            merged = [
                next(found) if floating else leaf
                for floating, leaf in zip(is_floating, everything, strict=True)
            ]
            return apply_fn(jax.tree.unflatten(structure, merged), x)

        devices = jax.local_devices()
        self._mesh = jax.make_mesh(
            (len(devices),), ("samples",), axis_types=(AxisType.Auto,), devices=devices
        )
        self._programs = _Programs(apply)
        self.inputs = inputs
        self.leaves = self._spread(
            [
                jnp.asarray(leaf, jnp.promote_types(jnp.result_type(leaf), jnp.float32))
                for leaf, floating in zip(everything, is_floating, strict=True)
                if floating
            ],
            PartitionSpec(),
        )

    def moved(self, leaves: Leaves) -> "Network":
        """The same network at other parameters."""
        other = copy.copy(self)
        other.leaves = leaves
        return other

    @property
    def size(self) -> int:
        """Number of floating-point parameters."""
        return sum(leaf.size for leaf in self.leaves)

    def outputs(self) -> np.ndarray:
        """Outputs of all examples, ``(N, C)``."""
        return self._by_chunks(lambda x: self._programs.outputs(self.leaves, x))

    def alone(self) -> np.ndarray:
        """Outputs of the first example, ``(1, C)``, computed without the others."""
        return np.asarray(self._programs.outputs(self.leaves, self.inputs[:1]))

    def pushforward(self, tangent: Leaves) -> np.ndarray:
        """Derivative of the outputs along a direction of the parameters, ``(N, C)``."""
        return self._by_chunks(lambda x: self._programs.pushforward(self.leaves, tangent, x))

    def pullback(self, cotangents: np.ndarray) -> Leaves:
        """Sum over examples of the gradients of the outputs, weighted by ``(N, C)``."""
        total = jax.tree.map(jnp.zeros_like, self.leaves)
        for chosen, kept in self._chunks(_CHUNK_SAMPLES, 0, len(self.inputs)):
            weights = cotangents[chosen] * (np.arange(len(chosen)) < kept)[:, None]
            total = self._programs.pullback(
                self.leaves, total, *self._split((self.inputs[chosen], weights))
            )
        return total

    def sample_gradients(
        self, cotangents: np.ndarray, sketch: Sketch
    ) -> Callable[[int, int], list[np.ndarray]]:
        """Gradients of each example's outputs, weighted by each of some cotangents.

        Args:
          cotangents: ``(Z, C)``.
          sketch: what is kept of the gradients, a list of arrays ``(samples, Z, d)``, one
            a leaf.

        Returns:
          A function ``(start, stop) ->`` what is kept for these examples.
        """
        most = max(_CHUNK_BYTES // (4 * len(cotangents) * max(self.size, 1)), 1)

        def of_range(start: int, stop: int) -> list[np.ndarray]:
            parts = []
            for chosen, kept in self._chunks(min(most, _CHUNK_SAMPLES), start, stop):
                leaves = self._programs.sample_gradients(
                    self.leaves, self._split(self.inputs[chosen]), cotangents, sketch=sketch
                )
                parts.append([np.asarray(leaf)[:kept] for leaf in leaves])
            return [np.concatenate(leaves) for leaves in zip(*parts, strict=True)]

        return of_range

    def _by_chunks(self, program: Callable[[jax.Array], jax.Array]) -> np.ndarray:
        chunks = self._chunks(_CHUNK_SAMPLES, 0, len(self.inputs))
        return np.concatenate(
            [np.asarray(program(self._split(self.inputs[c])))[:kept] for c, kept in chunks]
        )

    def _chunks(self, samples: int, start: int, stop: int) -> Iterator[tuple[np.ndarray, int]]:
        """Indices of each chunk, and how many of them count: the last chunk is filled up."""
        samples = -(-min(samples, stop - start) // self._mesh.size) * self._mesh.size
        for first in range(start, stop, samples):
            chosen = np.minimum(np.arange(first, first + samples), stop - 1)
            yield chosen, min(samples, stop - first)

    def _split(self, values: Any) -> Any:
        return self._spread(values, PartitionSpec("samples"))

    def _spread(self, values: Any, spec: PartitionSpec) -> Any:
        return jax.device_put(values, NamedSharding(self._mesh, spec))


class _Programs:
    """The compiled programs, the same for a network wherever its parameters move.

    Attributes:
      outputs: ``(leaves, x) -> (n, C)``.
      pushforward: ``(leaves, tangent, x) -> (n, C)``.
      pullback: ``(leaves, total, x, cotangents) ->`` the total with these gradients added.
      sample_gradients: ``(leaves, x, cotangents, sketch=) ->`` what the sketch keeps.
    """

    def __init__(self, apply: Callable[[Leaves, jax.Array], jax.Array]):
        def pushforward(leaves, tangent, x):
            return jax.jvp(lambda w: apply(w, x), (leaves,), (tangent,))[1]

        def pullback(leaves, total, x, cotangents):
            outputs, vjp = jax.vjp(lambda w: apply(w, x), leaves)
            return jax.tree.map(jnp.add, total, vjp(cotangents.astype(outputs.dtype))[0])

        def sample_gradients(leaves, x, cotangents, *, sketch):
            def of_one(x):
                outputs, vjp = jax.vjp(lambda w: apply(w, x[None])[0], leaves)
                return jax.vmap(lambda z: vjp(z)[0])(cotangents.astype(outputs.dtype))

            gradients = jax.vmap(of_one)(x)
            return sketch([leaf.reshape(*leaf.shape[:2], -1) for leaf in gradients])

        self.outputs = jax.jit(apply)
        self.pushforward = jax.jit(pushforward)
        self.pullback = jax.jit(pullback)
        self.sample_gradients = jax.jit(sample_gradients, static_argnames="sketch")

"""A variational quantum eigensolver for the transverse-field Ising chain, on a statevector.

H = -sum_i Z_i Z_(i+1) - g sum_i X_i on a ring; Kandala et al. (2017) for the layered circuit. The
rotations are about y and the entanglers controlled Z, so that all amplitudes are real.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from experiments.science.tasks.task import Task


def task(qubits: int = 8, layers: int = 6, field: float = 1.0, dtype: Any = jnp.float32) -> Task:
    """Angles (layers, qubits); the loss is the energy above the ground state's."""
    ground = float(linalg.eigsh(hamiltonian(qubits, field), k=1, which="SA")[0][0])

    def energy(params: dict[str, jax.Array]) -> jax.Array:
        return expectation(state(params["angles"]), field) - ground

    def init(key: jax.Array) -> dict[str, jax.Array]:
        return {"angles": 0.5 * jax.random.normal(key, (layers, qubits), dtype)}

    return Task(
        name="circuit",
        init=init,
        points=(),
        sample=lambda key: (),
        value=lambda params, points: energy(params),
        error=lambda params: jnp.abs(energy(params)) / abs(ground),
        error_name="relative error of the energy",
    )


def hamiltonian(qubits: int, field: float) -> sparse.csr_matrix:
    """The Hamiltonian as a sparse matrix, 2^qubits square."""

    def on(site: int, matrix: np.ndarray) -> sparse.csr_matrix:
        left, right = sparse.identity(2**site), sparse.identity(2 ** (qubits - 1 - site))
        return sparse.csr_matrix(sparse.kron(sparse.kron(left, matrix), right))

    z, x = np.diag([1.0, -1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])
    terms = [-(on(i, z) @ on((i + 1) % qubits, z)) - field * on(i, x) for i in range(qubits)]
    return sparse.csr_matrix(sum(terms[1:], terms[0]))


def state(angles: jax.Array) -> jax.Array:
    """Amplitudes (2,) * qubits after all layers from |0...0>; qubit i is axis i."""
    qubits = angles.shape[1]
    amplitudes = jnp.zeros((2,) * qubits, angles.dtype).at[(0,) * qubits].set(1)
    signs = _controlled_z(qubits).astype(angles.dtype)
    for layer in angles:
        for qubit, angle in enumerate(layer):
            c, s = jnp.cos(angle / 2), jnp.sin(angle / 2)
            rotation = jnp.stack([jnp.stack([c, -s]), jnp.stack([s, c])])
            amplitudes = jnp.moveaxis(jnp.tensordot(rotation, amplitudes, (1, qubit)), 0, qubit)
        amplitudes = amplitudes * signs
    return amplitudes


def expectation(amplitudes: jax.Array, field: float) -> jax.Array:
    """Energy of a state (2,) * qubits."""
    qubits = amplitudes.ndim
    bits = np.indices(amplitudes.shape)
    spins = 1 - 2 * bits
    bonds = sum(spins[i] * spins[(i + 1) % qubits] for i in range(qubits))
    flipped = sum(jnp.sum(amplitudes * jnp.flip(amplitudes, i)) for i in range(qubits))
    return -jnp.sum(jnp.asarray(bonds, amplitudes.dtype) * amplitudes**2) - field * flipped


def _controlled_z(qubits: int) -> np.ndarray:
    """Signs of controlled Z between all neighbours of the ring."""
    bits = np.indices((2,) * qubits)
    return np.prod([1 - 2 * bits[i] * bits[(i + 1) % qubits] for i in range(qubits)], axis=0)

"""How far predictions in float32 are from the same fit in float64, at many coordinates.

The history is one of decaying and turning modes and noise around weights that are far larger. Both
predictions start from the same stored increments: what is compared is the Gram matrix, the algebra
and the sum of the increments. Errors are in units of the optimizer's move over one period.

  python -m experiments.benchmarks.accuracy --size=100000000
"""

from collections.abc import Iterable, Iterator
import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli
from experiments.settings import Config, setting
import pdt_optax

_COLUMNS, _HISTORY, _HORIZON, _BLOCK = 1000, 5, 5, 10**6
_MODES = np.array([[0.97, 0.0], [0.8, 0.5], [0.6, 0.0]])  # Modulus and angle of each.


class Settings(Config):
    """What is compared."""

    size: int = setting(10**8, "Coordinates, a multiple of 1000.", least=1000)
    seeds: int = setting(1, "Histories.", least=1)


def main(config: Settings) -> None:
    """Runs the program."""
    for seed in range(config.seeds):
        error = prediction_error(config.size, seed)
        print(f"N = {config.size:,}, seed {seed}: error {error:.2e} of one step", flush=True)


def prediction_error(size: int, seed: int) -> float:
    """``||p_32 - p_64|| / ||d||`` at horizon 5."""
    shape = (size // _COLUMNS, _COLUMNS)
    jump = pdt_optax.Extrapolate(
        pdt_optax.criteria.accept_all(), _HORIZON, history=_HISTORY, start=_HISTORY
    )
    tx = pdt_optax.pdt(1, jump)
    keys = jax.random.split(jax.random.key(seed), 1 + 2 * len(_MODES) + _HISTORY)
    params = 0.05 * jax.random.normal(keys[0], shape)
    state = cast(pdt_optax.PDTState, tx.init(params))
    move, update = jax.jit(functools.partial(_move, shape=shape)), jax.jit(tx.update)
    for period in range(_HISTORY):
        updates, before = move(keys[1:], period), state
        updates, new_state = update(updates, state, params)
        state = cast(pdt_optax.PDTState, new_state)
        if period < _HISTORY - 1:
            params = params + updates
    assert state.predictions == 1
    basis = _basis(before.history, size)
    coefficients = _coefficients(basis)
    error = size_of_move = 0.0
    own = move(keys[1:], _HISTORY - 1)
    for jump, step, *columns in _blocks([updates, own, *basis]):
        predicted = coefficients @ np.stack(columns)
        error += float(np.sum((jump - predicted) ** 2))
        size_of_move += float(np.sum(step**2))
    return (error / size_of_move) ** 0.5


def _move(keys: jax.Array, period: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Of one period: each mode turned and shrunk, and noise of a tenth."""
    total = 1e-4 * jax.random.normal(jax.random.fold_in(keys[-1], period), shape)
    for i, (modulus, angle) in enumerate(_MODES):
        cosine, sine = (jax.random.normal(keys[2 * i + j], shape) for j in range(2))
        turn = angle * period
        total += 1e-3 * modulus**period * (cosine * jnp.cos(turn) + sine * jnp.sin(turn))
    return total


def _basis(history: pdt_optax.state.History, size: int) -> list[np.ndarray]:
    """The increments and the newest snapshot, flat; a small leaf lies in the rows."""
    rows, is_large = history.rows, bool(jax.tree.leaves(history.anchor))
    held = (*history.increments, history.anchor) if is_large else (*rows.ring, rows.newest)
    return [np.asarray(array).reshape(-1)[:size] for array in held]


def _coefficients(basis: list[np.ndarray]) -> np.ndarray:
    """Of the basis in the prediction, by NumPy in float64: DMD in an orthonormal basis."""
    gram = sum(np.stack(columns) @ np.stack(columns).T for columns in _blocks(basis))
    assert isinstance(gram, np.ndarray)
    norms = np.sqrt(np.diag(gram))
    values, vectors = np.linalg.eigh(gram / np.outer(norms, norms))
    factor = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T * norms
    coordinates = -np.tril(np.ones((_HISTORY, _HISTORY)))
    coordinates[-1] = 1.0
    snapshots = factor @ coordinates
    x, y = snapshots[:, :-1], snapshots[:, 1:]
    operator = y @ np.linalg.pinv(x, rcond=1e-12)
    predicted = np.linalg.matrix_power(operator, _HORIZON) @ y[:, -1] - y[:, -1]
    return np.linalg.solve(factor, predicted)


def _blocks(arrays: Iterable[jax.Array | np.ndarray]) -> Iterator[list[np.ndarray]]:
    """The arrays piece by piece, flat, in float64."""
    flat = [np.asarray(array).reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, _BLOCK):
        yield [array[start : start + _BLOCK].astype(np.float64) for array in flat]


if __name__ == "__main__":
    cli.run(main, Settings)

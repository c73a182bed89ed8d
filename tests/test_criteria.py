"""Criteria against masks worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pdt_optax

# Coordinates: straight at 1, 2, 3 and 4 times the move; backwards; a detour that
# ends well; too short; a standstill; no move at all.
MOVE = jnp.array([1.0, -1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.0])
PATH = tuple(
    jnp.array(step)
    for step in (
        [0.5, -1.0, 1.0, 4.0, -1.0, -0.5, 0.2, 1.0, 1.0],
        [0.8, -1.5, 2.0, 6.0, -2.0, 0.5, 0.4, 1.0, 2.0],
        [1.0, -2.0, 3.0, 8.0, -3.0, 2.0, 0.6, 2.0, 3.0],
    )
)
PROPOSAL = pdt_optax.criteria.Proposal(MOVE, PATH, jnp.array(3.0), jnp.array(0), 0)


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ("paper", [0, 0, 1, 1, 0, 0, 0, 0, 0]),
        ("bounded", [1, 1, 1, 0, 0, 0, 0, 0, 0]),
        ("reference", [1, 1, 1, 1, 0, 1, 0, 1, 0]),
    ],
)
def test_presets(criteria, expected):
    criterion, _ = pdt_optax.criteria.resolve(criteria)
    assert criterion(PROPOSAL).astype(int).tolist() == expected


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        (pdt_optax.criteria.path_sign(), [1, 1, 1, 1, 0, 0, 1, 0, 0]),
        (pdt_optax.criteria.final_sign(), [1, 1, 1, 1, 0, 1, 1, 1, 0]),
        (pdt_optax.criteria.magnitude_bounds(1, 2), [1, 1, 0, 0, 0, 1, 0, 1, 0]),
        (pdt_optax.criteria.magnitude_bounds(lower=3), [0, 0, 1, 1, 1, 0, 0, 0, 1]),
        (
            pdt_optax.criteria.magnitude_bounds(upper=lambda tau: tau / 3),
            [1, 0, 0, 0, 0, 0, 1, 0, 0],
        ),
        (pdt_optax.criteria.accept_all(), [1] * 9),
        (
            pdt_optax.criteria.all_of(
                pdt_optax.criteria.final_sign(), pdt_optax.criteria.magnitude_bounds(upper=1)
            ),
            [1, 0, 0, 0, 0, 0, 1, 0, 0],
        ),
        (pdt_optax.criteria.all_of("reference", "bounded"), [1, 1, 1, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_building_blocks(criterion, expected):
    assert criterion(PROPOSAL).astype(int).tolist() == expected


def test_presets_are_combinations_of_their_equations():
    """Eq. 8 lies between Eq. 6 reversed and the optimizer's own distance."""
    straight = pdt_optax.criteria.all_of(
        pdt_optax.criteria.path_sign(), pdt_optax.criteria.magnitude_bounds(1.0)
    )
    either = pdt_optax.criteria.resolve("paper")[0](PROPOSAL) | pdt_optax.criteria.resolve(
        "bounded"
    )[0](PROPOSAL)
    np.testing.assert_array_equal(either, straight(PROPOSAL))


def test_random_mask():
    criterion = pdt_optax.criteria.random_mask(0.3, jax.random.key(1))
    shape = (200, 200)
    proposal = PROPOSAL._replace(move=jnp.ones(shape), path=(jnp.ones(shape),))
    mask = criterion(proposal)
    assert abs(float(mask.mean()) - 0.3) < 5 * np.sqrt(0.3 * 0.7 / mask.size)
    np.testing.assert_array_equal(mask, criterion(proposal))
    for other in (proposal._replace(event=jnp.array(1)), proposal._replace(leaf=1)):
        agreement = float((criterion(other) == mask).mean())
        assert abs(agreement - (0.3**2 + 0.7**2)) < 0.02

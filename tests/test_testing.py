"""The public checks: what is wrong is found, what ships is right."""

import dataclasses

import jax.numpy as jnp
import pytest

import pdt_optax
from pdt_optax import criteria, predictors, testing


@pytest.mark.parametrize(
    "predictor",
    [predictors.dmd(), predictors.dmd(0), predictors.affine_dmd(), predictors.linear()],
)
def test_predictors_pass(predictor):
    testing.check_predictor(predictor)


@pytest.mark.parametrize(
    ("predictor", "message"),
    [
        (lambda gram, horizon: jnp.zeros((horizon + 1, 5)), r"\(5, 5\), got the shape \(6, 5\)"),
        (lambda gram, horizon: jnp.zeros((horizon, 5), jnp.bfloat16), "float32 .* got bfloat16"),
        (
            lambda gram, horizon: jnp.ones((horizon, 5)) / gram.matrix[0, 0],
            "coefficients of weights at rest must be finite",
        ),
        (
            lambda gram, horizon: jnp.full((horizon, 5), gram.matrix[-1, -1]),
            "must not depend on the unit of the weights",
        ),
    ],
)
def test_a_wrong_predictor_is_found(predictor, message):
    with pytest.raises(AssertionError, match=message):
        testing.check_predictor(predictor)


@pytest.mark.parametrize(
    "criterion", [criteria.path_sign(), criteria.final_sign(), criteria.magnitude_bounds(0.5, 3.0)]
)
def test_criteria_pass(criterion):
    testing.check_criterion(criterion)


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (lambda proposal: jnp.ones(3, bool), r"\(64,\), got \(3,\)"),
        (lambda proposal: True, r"\(64,\), got \(\)"),
        (lambda proposal: jnp.sign(proposal.move), "must be boolean, got float32"),
        (
            lambda proposal: proposal.move > proposal.move.mean(),
            "must not depend on others",
        ),
    ],
)
def test_a_wrong_criterion_is_found(criterion, message):
    with pytest.raises(AssertionError, match=message):
        testing.check_criterion(criterion)


@dataclasses.dataclass(frozen=True)
class Astray(pdt_optax.Solve):
    """Lands at nothing finite."""

    def land(self, event, **functions):
        landing = super().land(event, **functions)
        return landing._replace(updates=[update * jnp.inf for update in landing.updates])


@pytest.mark.slow
@pytest.mark.parametrize("jump", [pdt_optax.Extrapolate(), pdt_optax.Verify(start=3)])
def test_ways_of_jumping_pass(jump):
    testing.check_jump(jump)


@pytest.mark.slow
def test_a_wrong_way_of_jumping_is_found():
    with pytest.raises(AssertionError, match="must not reach the parameters"):
        testing.check_jump(Astray(history=3, start=2))

"""The code of docs/recipes.md, which tests run as it stands."""

import pathlib
import re
from typing import Any

import jax
import optax
import pytest
from suites import quick

import pdt_optax

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "recipes.md"
BLOCKS: dict[str, str] = dict(
    re.findall(r"^### ([^\n]+)\n(?:(?!^#).*?)^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
)
"""From the heading of a recipe to its code."""
_PASSED = ", value_fn=value_fn"


def run(heading: str, extra: str = _PASSED, **given: Any) -> Any:
    """What a recipe defines, given what it takes from around it.

    Args:
      heading: of the recipe.
      extra: what stands instead of ``, value_fn=value_fn``.
      **given: names that the recipe uses.
    """
    code = compile(BLOCKS[heading].replace(_PASSED, extra), f"{PAGE.name}: {heading}", "exec")
    exec(code, given)
    return given


JUMPS = {
    "extrapolate": pdt_optax.Extrapolate(history=3, start=3, horizon=2, predictor="linear"),
    "verify": pdt_optax.Verify(history=3, start=3),
    "solve": pdt_optax.Solve(history=4),
}
"""Ways of jumping that jump soon."""
CLOSE = {"extrapolate": 1e-5, "verify": 1e-5, "solve": 1e-2}
"""How far the same training in another program may end: solving multiplies rounding."""


def in_short(*short: str) -> pytest.MarkDecorator:
    """Parametrizes over the ways of jumping, all but `short` in the long suite."""
    return pytest.mark.parametrize("jump", quick(JUMPS, *short))


def passed(jump: str) -> str:
    """What a way of jumping needs of ``, value_fn=value_fn``."""
    return "" if jump == "extrapolate" else _PASSED


def by_hand(tx: Any, loss: Any, leaves: list[Any], steps: int, is_blind: bool) -> Any:
    """Leaves and state after optax's own loop over a list of arrays.

    Args:
      tx: the transformation.
      loss: of the list.
      leaves: to begin with.
      steps: how many.
      is_blind: whether `tx` is given nothing but gradients.
    """
    extra = {} if is_blind else {"value_fn": loss}

    @jax.jit
    def step(leaves, state):
        updates, state = tx.update(jax.grad(loss)(leaves), state, leaves, **extra)
        return optax.apply_updates(leaves, updates), state

    state = tx.init(leaves)
    for _ in range(steps):
        leaves, state = step(leaves, state)
    return leaves, state

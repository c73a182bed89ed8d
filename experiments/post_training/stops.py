"""What a run that is stopped early gives, as it is and extrapolated once, from its snapshots."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.post_training import linearity
from experiments.post_training.training import rewards

SHARES = (0.15, 0.3, 0.5)
FURTHER = (1.5, 2.0)  # Times as far as the run went.
_WAYS = {"rank one": linearity.relex, "secant": linearity.secant}


def stopped(snapshots: Sequence[Any], share: float) -> dict[str, float]:
    """Held-out expected rewards of a run of which only a share is seen.

    Args:
      snapshots: of the parameters, the start in front.
      share: of the steps that are seen.

    Returns:
      By names: 'stopped', the 'mean' of the second half of what was seen, and for each way of
      extrapolating how far it leads, 'end' for the end of the run; 'rank one 1' leads nowhere.
    """
    end = len(snapshots) - 1
    last = max(2, round(share * end))
    seen = snapshots[: last + 1]
    mean = jax.tree.map(lambda *leaves: jnp.stack(leaves).mean(0), *seen[1 + last // 2 :])
    found = {"stopped": seen[-1], "mean": mean}
    found["rank one 1"] = linearity.extrapolated(seen, last, linearity.relex)
    for name, way in _WAYS.items():
        for factor in FURTHER:
            found[f"{name} {factor:g}"] = linearity.extrapolated(seen, factor * last, way)
        found[f"{name} end"] = linearity.extrapolated(seen, end, way)
    return {name: round(float(rewards(params)[0]), 4) for name, params in found.items()}

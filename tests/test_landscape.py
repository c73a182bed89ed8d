"""The loss on the plane of trajectories, and the picture of it."""

import types
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import landscape

pytestmark = pytest.mark.slow


def test_the_plane_holds_trajectories_of_two_dimensions_and_their_loss(monkeypatch, tmp_path):
    """All lie in one plane, so that distances in it are true ones, and so is the loss."""
    monkeypatch.setattr(landscape, "_POINTS", 5)
    random = np.random.default_rng(0)
    directions = np.linalg.qr(random.normal(size=(30, 2)))[0]
    places = {
        "base": np.array([[0, 0], [1, 0.5], [2, 0.2], [2.5, 0]]),
        "paper": np.array([[0, 0], [1.5, -1], [3, -0.5]]),
    }
    runs = {name: (1 + place @ directions.T).astype(np.float32) for name, place in places.items()}
    center = runs["paper"][-1]
    workload: Any = types.SimpleNamespace(
        init=lambda seed: ({"a": jnp.zeros(10), "b": jnp.zeros((4, 5))}, None),
        score=lambda params, state, images: jnp.sum(
            (jnp.concatenate([params["a"], params["b"].ravel()]) - center) ** 2
        ),
        dataset=types.SimpleNamespace(epoch_batches=lambda *_: iter([None])),
    )
    found = landscape.plane(workload, runs, seed=0)
    np.testing.assert_allclose(found.explained.sum(), 1, rtol=1e-5)
    for name, place in places.items():
        ours, true = (
            np.linalg.norm(p[:, None] - p[None], axis=-1) for p in (found.paths[name], place)
        )
        np.testing.assert_allclose(ours, true, atol=1e-5)
    across, up = found.paths["paper"][-1]
    expected = (found.axes[0] - across)[None] ** 2 + (found.axes[1] - up)[:, None] ** 2
    np.testing.assert_allclose(found.losses, expected, rtol=1e-4, atol=1e-5)
    landscape.draw(found).savefig(tmp_path / "landscape.png")

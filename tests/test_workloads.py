"""Workloads: batch norm, dropout, learning without labels, other resolutions."""

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import few

from experiments.data import ORDERS, ArrayDataset, Examples, digits, patches
from experiments.models import MODELS
from experiments.runs import knn_probe, training, workloads
from experiments.runs.devices import PLACEMENTS
from experiments.runs.step import TrainState, train_step
import pdt_optax


def workload_of(name: str, dataset: ArrayDataset | None = None, resolution: int | None = None):
    model = functools.partial(MODELS[name], width=1 / 16)
    return workloads.create(
        model, few(patches.load(), 64) if dataset is None else dataset, resolution
    )


def test_running_statistics_are_a_state_beside_the_parameters():
    workload = workload_of("fully_convolutional")
    params, state = workload.init(0)
    batch = next(workload.dataset.epoch_batches(0, 1, 32))
    loss, moved = jax.jit(workload.loss)(params, state, batch)
    first = {"mean": 0.9 * 0, "var": 0.9 * 1}
    convolution = params["convolutions"][0]
    sides = jax.lax.conv_general_dilated(
        batch.inputs,
        convolution["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ) + convolution["bias"].reshape(1, 1, 1, -1)
    for name, value in (("mean", sides.mean((0, 1, 2))), ("var", sides.var((0, 1, 2)))):
        expected = first[name] + 0.1 * value
        np.testing.assert_allclose(moved["norms"][0][name], expected, rtol=1e-3, atol=1e-4)
    # Scored by the statistics of the batch, whatever the running ones are.
    np.testing.assert_allclose(jax.jit(workload.score)(params, moved, batch), loss, rtol=1e-5)
    before, after = (workload.evaluate(params, s, "validation").loss for s in (state, moved))
    assert before != after


def test_jumps_are_scored_on_all_classes_whatever_the_order_of_training():
    dataset = dataclasses.replace(digits.load(), order=ORDERS["one_class"])
    workload = workloads.create(MODELS["fcn"], dataset)
    arm = training.Arm("base", optax.sgd(0.1))
    scored = training.scored_examples(workload, arm, seed=0, number=512)
    assert len(scored.labels) == 512
    assert set(np.asarray(scored.labels).tolist()) == set(range(10))


def test_dropout_draws_anew_at_each_step_and_not_in_the_score():
    workload = workload_of("alexnet")
    params, state = workload.init(0)
    batch = next(workload.dataset.epoch_batches(0, 1, 16))
    loss = jax.jit(workload.loss)
    first, moved = loss(params, state, batch)
    again, _ = loss(params, state, batch)
    second, _ = loss(params, moved, batch)
    assert first == again != second
    score = jax.jit(workload.score)
    assert score(params, state, batch) == score(params, moved, batch)


@pytest.mark.parametrize("devices", ["one", "data", "fsdp"])
def test_evaluation_is_that_of_the_whole_split(devices):
    """From the model's own logits in one batch; eight devices divide no batch of the split."""
    dataset = few(patches.load(), 601)
    workload = workload_of("cnn", dataset)
    placement = PLACEMENTS[devices]()
    params, state, _ = placement.put(*workload.init(0), optax.sgd(0.1))
    loss, accuracy = workload.evaluate(params, state, "train", placement)
    params, state = workload.init(0)
    logits: Any = jax.jit(workload.logits)  # pyright: ignore[reportArgumentType]
    right = logits(params, state, dataset.train.inputs).argmax(-1) == dataset.train.labels
    assert loss == pytest.approx(
        float(jax.jit(workload.score)(params, state, dataset.train)), rel=1e-5
    )
    assert accuracy == np.asarray(right).mean()
    wild = jax.tree.map(lambda leaf: leaf * np.nan, params)
    assert np.isnan(workload.evaluate(wild, state, "train").accuracy)


@pytest.mark.skipif("PDT_SMOKE" not in os.environ, reason="compiles for a minute; PDT_SMOKE=1")
def test_training_without_labels():
    workload = workload_of("simsiam", few(patches.load(), 32))
    params, state = workload.init(0)
    tx = optax.chain(optax.sgd(0.05), pdt_optax.pdt(2, pdt_optax.Verify((2,), start=1)))
    train_state = TrainState(params, state, tx.init(params))
    step = jax.jit(train_step(workload.loss, tx, workload.score))
    (batch,) = workload.dataset.epoch_batches(0, 1, 32)
    assert batch.inputs.shape == (32, 2, 32, 32, 3)
    for _ in range(3):
        train_state = step(train_state, batch, batch)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(train_state.params))
    before = workload.evaluate(params, state, "validation")
    views = workload.validation().inputs
    assert views.shape == (workload.dataset.size("validation"), 2, 32, 32, 3)
    assert -1 <= workload.score(params, state, workload.validation()) <= 1
    assert -1 <= before.loss <= 1
    assert 0 <= before.accuracy <= 1
    assert np.isnan(workload.evaluate(params, state, "train").accuracy)
    with pytest.raises(ValueError, match="must be trained on images"):
        workload_of(
            "simsiam", dataclasses.replace(digits.load(), train=Examples(np.ones((4, 5)), [0]))
        )


def test_the_nearest_classes_of_two_bundles():
    """Directions near the axes x and y; the third class has one far example only."""
    known = np.array([[1, 0.1], [1, -0.1], [0.9, 0], [0.1, 1], [-0.1, 1], [-1, -1]], np.float32)
    labels = np.array([0, 0, 0, 1, 1, 2])
    features = np.array([[5, 1], [0.2, 3], [-2, -1.9]], np.float32)
    found = knn_probe.nearest_classes(jnp.asarray(features), jnp.asarray(known), labels, 3)
    np.testing.assert_array_equal(found, [0, 1, 2])


def test_images_are_resized_on_the_device():
    dataset = few(digits.load(), 64)
    workload = workload_of("fully_convolutional", dataset, resolution=32)
    params, state = workload.init(0)
    assert np.isfinite(workload.evaluate(params, state, "test").loss)
    texts: Any = dataclasses.replace(dataset, train=Examples(np.ones((4, 50), np.int32), [0] * 4))
    with pytest.raises(ValueError, match="`resolution` must be None"):
        workload_of("lstm", texts, resolution=32)

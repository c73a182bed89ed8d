"""The language model and the measures of flatness."""

import os
import pathlib

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from experiments import cli, train_lm
from experiments.data import text
from experiments.ire import flatness, language, report
from experiments.ire.masks import MASKS
from experiments.models.llama import SIZES, Llama, Size, rotate
from experiments.runs import records
from experiments.runs.step import start
import pdt_optax

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(("name", "millions"), [("60m", 60), ("119m", 119), ("229m", 229)])
def test_sizes_of_the_paper(name, millions):
    model = nnx.eval_shape(lambda: Llama(SIZES[name], rngs=nnx.Rngs(0)))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model)))
    assert count / 1e6 == pytest.approx(millions, rel=0.01)


def test_decoder_does_not_look_ahead():
    model = Llama(Size(11, width=12, heads=2, layers=2, hidden=16), rngs=nnx.Rngs(0))
    tokens = jnp.arange(8)[None] % 11
    changed = tokens.at[0, 5].set(9)
    apply = nnx.jit(lambda model, tokens: model(tokens))
    difference = np.abs(apply(model, tokens) - apply(model, changed)).max(axis=(0, 2))
    np.testing.assert_array_equal(difference[:5], 0)
    assert (difference[5:] > 0).all()


def test_rotary_products_depend_on_the_distance_alone():
    random = np.random.default_rng(0)
    query, key = (np.broadcast_to(v, (1, 9, 1, 7)) for v in random.standard_normal((2, 7)))
    products = np.einsum(
        "tc,sc->ts", rotate(jnp.array(query))[0, :, 0], rotate(jnp.array(key))[0, :, 0]
    )
    for offset in range(-8, 9):
        assert np.ptp(np.diagonal(products, offset)) < 1e-5
    np.testing.assert_allclose(np.diagonal(products), query[0, 0, 0] @ key[0, 0, 0], rtol=1e-4)


@pytest.mark.parametrize(("name", "least"), [("pydoc", 400_000), ("numpy", 1_500_000)])
def test_texts_of_packages(name, least):
    numbers = text.TEXTS[name]()
    assert len(numbers.train) + len(numbers.validation) > least
    assert numbers.train.max() < numbers.vocabulary <= 128


@pytest.fixture
def files(tmp_path):
    """A text of 400 words and a tokenizer made from it."""
    words = np.random.default_rng(0).choice(["alpha", "beta", "gamma", "delta"], 400)
    (tmp_path / "text.txt").write_text("\n".join(words) + "\n")
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(np.unique(words))}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path, words


def test_text_from_a_file(files):
    folder, words = files
    numbers = text.read(folder / "text.txt", folder / "tokenizer.json")
    assert numbers.vocabulary == 4
    expected = np.unique(words, return_inverse=True)[1]
    np.testing.assert_array_equal(np.concatenate([numbers.train, numbers.validation]), expected)
    assert len(numbers.validation) == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe=minipile"], "`text` must be given with minipile"),
        (["--text={}/text.txt"], "`text` must be left out: the `recipe` cpu has its own text"),
        (
            ["--recipe=minipile", "--text={}/no.txt", "--tokenizer={}/tokenizer.json"],
            r"`text`: .*no.txt must be a text file, and is not there",
        ),
        (
            ["--recipe=minipile", "--text={}/text.txt", "--tokenizer={}/text.txt"],
            "text.txt must be a tokenizer.json",
        ),
        (
            ["--recipe=minipile", "--text={}/text.txt", "--tokenizer={}/tokenizer.json"],
            "must have more than 513 tokens in each split, got 40",
        ),
    ],
)
def test_what_is_missing_is_named(files, arguments, message):
    with pytest.raises(SystemExit, match=message):
        train_lm.main(*cli.parsed([a.format(files[0]) for a in arguments], train_lm.Settings))


@pytest.mark.slow
@pytest.mark.parametrize("name", language.PAPER if "PDT_SMOKE" in os.environ else ["wikitext103"])
def test_recipes_of_the_paper_trace(name):
    """A whole step of each, without running it."""
    recipe = language.PAPER[name]
    numbers = np.zeros(3 * recipe.context, np.int32)
    task = language.Task(recipe, text.Text(numbers, numbers, recipe.size.vocabulary))
    params = jax.eval_shape(lambda: task.init(0))
    mask = language.Mask("flat", recipe.kappa, num_chunks=recipe.num_chunks)
    tx = task.optimizer(mask, recipe.learning_rate, recipe.steps)
    rows = jax.ShapeDtypeStruct((recipe.batch_size, recipe.context + 1), jnp.int32)

    state = jax.eval_shape(lambda params: start(params, tx), params)
    batch = jax.eval_shape(language.next_tokens, rows)
    assert jax.eval_shape(task.step(tx), state, batch) == state


def test_flatness_of_a_quadratic():
    random = np.random.default_rng(0)
    factor = random.standard_normal((12, 12))
    hessian = factor @ np.diag(np.linspace(-1, 5, 12)) @ factor.T
    eigenvalues = np.linalg.eigvalsh(hessian)
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones(6)}

    def loss(params):
        point = jnp.concatenate([params["a"].ravel(), params["b"]])
        return point @ jnp.asarray(hessian, jnp.float32) @ point / 2

    trace = flatness.trace(loss, params, jax.random.key(0), num_probes=4000)
    off_diagonal = hessian - np.diag(np.diag(hessian))
    error = np.sqrt(2 * np.sum(off_diagonal**2) / 4000)
    assert trace.error == pytest.approx(error, rel=0.1)
    assert abs(trace.mean - np.trace(hessian)) < 4 * error
    assert flatness.top_eigenvalue(loss, params) == pytest.approx(eigenvalues[-1], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "share"), [("flat", (1.0, 0.0)), ("sharp", (0.0, 1.0)), ("random", (0.5, 0.5))]
)
def test_masks_of_the_controls(name, share):
    """The part of the flatter and of the sharper half of the coordinates that is enlarged."""
    tx = pdt_optax.ire.scale_by_ire(
        1.0, gamma=0.5, warmup_steps=0, curvature_fn=MASKS[name](pdt_optax.ire.given_curvature())
    )
    params, curvature = jnp.zeros(1000), jnp.arange(1.0, 1001.0)
    updates, _ = tx.update(jnp.ones(1000), tx.init(params), params, curvature=curvature)
    enlarged = np.asarray(updates).reshape(2, 500) == 2
    np.testing.assert_allclose(enlarged.mean(1), share, atol=0.1)


def test_docs_hold_what_the_records_say():
    """The tables of the language model study, and the figures that its acceptance asks for."""
    rows = records.read_rows(ROOT / "experiments" / "results" / "ire_lm")
    docs = (ROOT / "docs" / "ire.md").read_text()
    table, _, _, _, trials, _, flat = report.summary(rows).split("\n\n")
    for part in (table, trials, flat.strip()):
        assert part in docs

    def mean(mask, steps=400):
        chosen = [r for r in rows if r["stage"] in ("report", "longer") and r["mask"] == mask]
        return np.mean([r["validation_losses"][-1] for r in chosen if r["steps"] == steps])

    assert mean("flat") < mean("none") - 0.05
    assert mean("flat") < mean("random") < mean("sharp")
    assert mean("none", 560) < mean("flat") < mean("none", 480)

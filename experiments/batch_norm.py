"""What jumps do to the running statistics of batch norm, and what refreshing them mends.

Trains a small ResNet without PDT, with blind jumps and with verified ones, and evaluates it after
each epoch twice: with the running statistics as they are, and refreshed over a few batches. Prints
a Markdown table of the records; what is recorded is not run again.

  python -m experiments.batch_norm --run_dir=runs/batch_norm
"""

from collections.abc import Iterable, Iterator, Sequence
import functools
import statistics
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import optax

from experiments import cli
from experiments.data import Examples, mnist5k
from experiments.models.resnet import ResNet
from experiments.reports import tables
from experiments.settings import Config, setting
import pdt_optax

EPOCHS, BATCH_SIZE, REFRESH_BATCHES = 12, 128, 8
START = 5  # The epoch of the first jump.
JUMPS = {
    "base": None,
    "paper": pdt_optax.Extrapolate(criteria="paper", start=START),
    "verified": pdt_optax.Verify(start=START, interval=1),
}
SMALL_RESNET = functools.partial(ResNet, blocks=(1, 1, 1, 1), bottleneck=False, width=1 / 8)


class Settings(Config):
    """What is run, and where."""

    seeds: tuple[int, ...] = setting((0, 100, 200), "Initialisations and orders of examples.")
    run_dir: str = setting("runs/batch_norm", "Folder of the records.")
    table: bool = setting(False, "Only print the table of the records.")


def refresh_statistics(model: nnx.Module, inputs: Iterable[ArrayLike]) -> None:
    """Replaces the running statistics of every batch norm by their means over a few batches.

    Running statistics are averages over the steps before: after a jump they describe the previous
    weights. Call this before evaluating. The parameters stay as they are.

    Args:
      model: a module with :class:`flax.nnx.BatchNorm`, changed in place; its modes and momenta are
        given back.
      inputs: batches, at least one.

    Raises:
      ValueError: if there is no batch.
    """
    norms = [node for _, node in nnx.iter_graph(model) if isinstance(node, nnx.BatchNorm)]
    modes = [(norm.use_running_average, norm.momentum) for norm in norms]
    for norm in norms:
        norm.use_running_average, norm.momentum = False, 0.0
    seen = [nnx.as_pure(_statistics(model, batch)) for batch in inputs]
    for norm, (use_running_average, momentum) in zip(norms, modes, strict=True):
        norm.use_running_average, norm.momentum = use_running_average, momentum
    if not seen:
        raise ValueError("`inputs` must hold at least one batch, got none.")
    nnx.update(model, jax.tree.map(lambda *each: jnp.mean(jnp.stack(each), axis=0), *seen))


@nnx.jit
def _statistics(model: nnx.Module, batch: ArrayLike) -> nnx.State:
    model(batch)  # pyright: ignore[reportCallIssue]
    return nnx.state(model, nnx.BatchStat)


def mean_loss(model: nnx.Module, examples: Examples) -> jax.Array:
    """Cross-entropy."""
    logits = model(examples.inputs)  # pyright: ignore[reportCallIssue]
    return optax.softmax_cross_entropy_with_integer_labels(logits, examples.labels).mean()


def train(seed: int, *links: optax.GradientTransformation) -> Iterator[dict[str, float]]:
    """Trains with SGD with momentum and further links of the chain.

    By hand, with `nnx.Optimizer`: the function above is for those who train so.

    Args:
      seed: of the initialisation and the order of the examples.
      *links: PDT, if any.

    Yields:
      After each epoch the share of the coordinates that jumped at its end, and the mean loss of the
      validation split with the running statistics as they are, and refreshed.
    """
    data = mnist5k.load()
    model = SMALL_RESNET(data.input_shape, data.num_classes, rngs=nnx.Rngs(seed))
    tx = optax.chain(optax.sgd(0.05, momentum=0.9), *links)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @functools.partial(nnx.jit, donate_argnums=(0, 1))
    def step(model: nnx.Module, optimizer: nnx.Optimizer, batch: Examples) -> None:
        graphdef, _, rest = nnx.split(model, nnx.Param, ...)

        def score(params: nnx.State) -> jax.Array:
            return mean_loss(nnx.merge(graphdef, params, rest, copy=True), batch)

        grads = nnx.grad(mean_loss)(model, batch)
        optimizer.update(model, grads, value_fn=score)

    evaluate = nnx.jit(mean_loss)
    predictions = 0
    for epoch in range(EPOCHS):
        model.train()
        for batch in data.epoch_batches(seed, epoch, BATCH_SIZE):
            step(model, optimizer, batch)
        jumped = 0.0
        if links:
            metrics = pdt_optax.metrics(optimizer.opt_state)
            if metrics.predictions > predictions:
                predictions, jumped = int(metrics.predictions), float(metrics.mask_ratio)
        model.eval()
        stale = float(evaluate(model, data.validation))
        batches = list(data.epoch_batches(seed, epoch, BATCH_SIZE))[:REFRESH_BATCHES]
        fresh = nnx.clone(model)
        refresh_statistics(fresh, (batch.inputs for batch in batches))
        yield {
            "epoch": epoch + 1,
            "jumped": jumped,
            "stale": stale,
            "refreshed": float(evaluate(fresh, data.validation)),
        }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the records in Markdown, from the first jump on.

    One line for the epochs of an arm that end with a jump and one for the others, over all seeds.
    """
    heading = ("", "epochs", "jumped %", "stale", "refreshed", "worst stale", "worst refreshed")
    lines = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        here = [row for row in rows if row["arm"] == arm and row["epoch"] >= START]
        for kind, part in {
            "after a jump": [row for row in here if row["jumped"]],
            "other epochs": [row for row in here if not row["jumped"]],
        }.items():
            if not part:
                continue
            jumped, stale, fresh = (
                [row[name] for row in part] for name in ("jumped", "stale", "refreshed")
            )
            losses = (*map(statistics.median, (stale, fresh)), max(stale), max(fresh))
            share = f"{100 * statistics.median(jumped):.0f}"
            texts = [f"{loss:.3f}" for loss in losses]
            lines.append([f"{arm}, {kind}", str(len(part)), share, *texts])
    return tables.grid(heading, lines, labels=1)


def main(config: Settings) -> None:
    """Runs the program."""
    if not config.table:
        _run(config)
    print(table(cli.read_rows(config.run_dir)))


def _run(config: Settings) -> None:
    done = cli.rows(config.run_dir, {"seeds": config.seeds})
    every = mnist5k.load().steps_per_epoch(BATCH_SIZE)
    for seed in config.seeds:
        for arm, jump in JUMPS.items():
            if done.has({"seed": seed, "arm": arm, "epoch": EPOCHS}):
                continue
            links = [] if jump is None else [pdt_optax.pdt(every, jump)]
            for row in list(train(seed, *links)):
                done.append({"seed": seed, "arm": arm, **row})


if __name__ == "__main__":
    cli.run(main, Settings)

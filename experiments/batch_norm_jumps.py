"""What jumps do to the running statistics of batch norm, and what refreshing them mends.

Trains a small ResNet without PDT, with blind jumps and with verified ones, and evaluates it after
each epoch twice: with the running statistics as they are, and refreshed over a few batches. Prints
a Markdown table of the records; what is recorded is not run again.

Example:
  python -m experiments.batch_norm_jumps --run_dir=runs/batch_norm
"""

from collections.abc import Iterator
import functools
import pathlib
import sys

from absl import flags
from flax import nnx
import jax
import optax

from experiments import batch_norm, batch_norm_report, cli
from experiments.data import Examples, mnist5k
from experiments.models.resnet import ResNet
from experiments.runs import records
import pdt_optax

EPOCHS, BATCH_SIZE, REFRESH_BATCHES = 12, 128, 8
ARMS = {
    "base": None,
    "paper": pdt_optax.Extrapolate(criteria="paper", start=batch_norm_report.START),
    "verified": pdt_optax.Verify(start=batch_norm_report.START, interval=1),
}
SMALL_RESNET = functools.partial(ResNet, blocks=(1, 1, 1, 1), bottleneck=False, width=1 / 8)

_SEEDS = flags.DEFINE_list("seeds", ["0", "100", "200"], "Initialisations and orders of examples.")
_RUN_DIR = flags.DEFINE_string("run_dir", "runs/batch_norm", "Folder of the records.")
_TABLE = flags.DEFINE_bool("table", False, "Only print the table of the records.")


def mean_loss(model: nnx.Module, examples: Examples) -> jax.Array:
    """Cross-entropy."""
    logits = model(examples.inputs)  # pyright: ignore[reportCallIssue]
    return optax.softmax_cross_entropy_with_integer_labels(logits, examples.labels).mean()


def train(seed: int, *links: optax.GradientTransformation) -> Iterator[dict[str, float]]:
    """Trains with SGD with momentum and further links of the chain.

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
        batch_norm.refresh_statistics(fresh, (batch.inputs for batch in batches))
        yield {
            "epoch": epoch + 1,
            "jumped": jumped,
            "stale": stale,
            "refreshed": float(evaluate(fresh, data.validation)),
        }


def main() -> None:
    """Runs the program."""
    run_dir = pathlib.Path(_RUN_DIR.value)
    if not _TABLE.value:
        _run(run_dir)
    try:
        rows = records.read_rows(run_dir)
    except OSError as error:
        sys.exit(f"flag --run_dir: {error}")
    print(batch_norm_report.table(rows))


def _run(run_dir: pathlib.Path) -> None:
    try:
        records.resume(run_dir, {"seeds": _SEEDS.value})
    except (OSError, ValueError) as error:
        sys.exit(f"flag --run_dir: {error}")
    done = {(row["seed"], row["arm"]) for row in records.read_rows(run_dir)}
    every = mnist5k.load().steps_per_epoch(BATCH_SIZE)
    for seed in map(int, _SEEDS.value):
        for arm, jump in ARMS.items():
            if (seed, arm) in done:
                continue
            links = [] if jump is None else [pdt_optax.pdt(every, jump)]
            for row in list(train(seed, *links)):
                records.append_row(run_dir, {"seed": seed, "arm": arm, **row})


if __name__ == "__main__":
    cli.run(main)

"""The arms of a run: what its configuration says is trained side by side."""

from collections.abc import Callable
import dataclasses

import jax
import optax

from experiments.configs.base import IREConfig, PDTConfig, RunConfig
from experiments.ire.masks import MASKS
from experiments.reports.time_to_target import BASE
from experiments.runs.controls import CONTROLS
from experiments.runs.criteria import CRITERIA
from experiments.runs.optimizers import OPTIMIZERS, SCHEDULES, Settings
from experiments.runs.training import Arm, Link
from experiments.runs.workloads import Workload
import pdt_optax

_DMDS = {"dmd": pdt_optax.predictors.dmd, "affine_dmd": pdt_optax.predictors.affine_dmd}
_PRODUCT_VALUES = 6  # A product with the Hessian takes as long as so many losses.
_VERIFY_POINTS = 5  # At which the path of a verified jump is judged.
# Of `rollback` alone: a way back, and the horizon and the interval as they are given.
_STEADY = pdt_optax.Adaptive(
    max_error=float("inf"), shrink=1.0, grow=1.0, max_interval=0, rollback=True
)


def build_arms(config: RunConfig, workload: Workload) -> list[Arm]:
    """The arms in the order in which they are trained.

    Raises:
      ValueError: if the workload does not fit them.
    """
    every = workload.dataset.steps_per_epoch(config.batch_size)
    if not every:
        of = "a class" if config.batch_order == "one_class" else "the train split"
        raise ValueError(f"`batch_size` must not be larger than {of}, got {config.batch_size}.")
    if config.ire and workload.logits is None:
        raise ValueError(f"`ire` needs a `model` with classes, got {config.model}.")
    if config.lr_grid:
        return [Arm(str(rate), _tuned(config, workload, rate, every)) for rate in config.lr_grid]
    base = _base(config, config.learning_rate, every)
    found = []
    if config.baseline or not (config.pdt or config.ire):
        found.append(Arm(BASE, base))
    if short := config.short_epochs:
        cut = dataclasses.replace(config, epochs=short, short_epochs=0)
        found.append(Arm("short", _base(cut, config.learning_rate, every), epochs=short))
    if rate := config.retuned_learning_rate:
        found.append(Arm("retuned", _base(config, rate, every)))
    for name in config.controls:
        control = CONTROLS[name]
        settings = _settings(config, config.learning_rate, every)
        optimizer = control.build(base, settings, config.optimizer, every)
        found.append(Arm(name, optimizer, evaluated=control.evaluated))
    links = _links(config.pdt, every) if config.pdt else {}
    found += [Arm(name, link.after(base), link) for name, link in links.items()]
    if ire := config.ire:
        base = _base(config, ire.learning_rate or config.learning_rate, every)
        for name, enhanced in _enhanced(ire, base, workload).items():
            found.append(Arm(name, enhanced, is_counted=False))
            for other, link in links.items() if ire.pdt else ():
                found.append(Arm(f"{name}+{other}", link.after(enhanced), link, is_counted=False))
    return found


def _settings(config: RunConfig, learning_rate: float, every: int) -> Settings:
    schedule = SCHEDULES[config.schedule](
        learning_rate,
        every * config.epochs,
        config.minimum_learning_rate,
        every * config.warmup_epochs,
        every * config.restart_epoch,
    )
    return Settings(schedule, learning_rate, config.momentum, config.weight_decay)


def _base(config: RunConfig, learning_rate: float, every: int) -> optax.GradientTransformation:
    return OPTIMIZERS[config.optimizer](_settings(config, learning_rate, every))


def _tuned(
    config: RunConfig, workload: Workload, learning_rate: float, every: int
) -> optax.GradientTransformation:
    base = _base(config, learning_rate, every)
    if config.ire is None:
        return base
    (only,) = _enhanced(config.ire, base, workload).values()
    return only


def _enhanced(
    config: IREConfig, base: optax.GradientTransformation, workload: Workload
) -> dict[str, optax.GradientTransformationExtraArgs]:
    """The optimizer with each mask of IRE, by the name of the arm."""
    _, model_state = workload.init(0)
    logits = workload.logits
    assert logits is not None
    fisher = pdt_optax.ire.sampled_label_fisher(
        lambda params, inputs: logits(params, model_state, inputs),
        jax.random.key(0),
        num_chunks=config.num_chunks,
    )
    return {
        "ire" if mask == "flat" else f"ire_{mask}": pdt_optax.ire.ire(
            base,
            config.kappa,
            gamma=config.gamma,
            update_interval=config.update_interval,
            warmup_steps=config.warmup_steps,
            curvature_fn=MASKS[mask](fisher),
        )
        for mask in config.masks
    }


def _links(config: PDTConfig, steps_per_epoch: int) -> dict[str, Link]:
    """The last link of the chain of each arm of PDT, by the arm's name."""
    config = dataclasses.replace(config, snapshot_every=config.snapshot_every or steps_per_epoch)
    found = {name: _blind(config, name) for name in config.criteria}
    for name, value in config.vary:
        varied = dataclasses.replace(config, vary=(), **{name: value})
        link = _blind(varied, config.criteria[0]) if config.criteria else _verified(varied)
        found[f"{name}={value}"] = link
    if config.verify:
        found["verified"] = _verified(config)
    if config.solve:
        solve = pdt_optax.Solve()
        products = _PRODUCT_VALUES * solve.history
        found["solved"] = Link(_after(config, solve), solve.history, 1, products, "train")
    for rank in config.streaming_ranks:
        streaming = pdt_optax.Streaming(rank, config.streaming_forgetting)
        found[f"streaming_{rank}"] = _verified(config, streaming)
    if config.switching:
        everything = pdt_optax.Verify(
            (config.horizon,),
            ("dmd",),
            pdt_optax.criteria.accept_all(),
            history=config.history,
            start=config.start or pdt_optax.Extrapolate.start,
            interval=config.interval,
        )
        found["switching"] = _scored(config, everything, "validation")
    return found


def _blind(config: PDTConfig, criteria: str) -> Link:
    """Fields of `Extrapolate` that the configuration has by the same name are passed on."""
    names = [field.name for field in dataclasses.fields(pdt_optax.Extrapolate)]
    given = {name: getattr(config, name, None) for name in names}
    shared = {name: value for name, value in given.items() if value is not None}
    rank, adaptive = config.svd_rank, pdt_optax.Adaptive(rollback=config.rollback)
    if rank is not None and config.predictor in _DMDS:
        shared["predictor"] = _DMDS[config.predictor](int(rank) if rank == int(rank) else rank)
    steady = _STEADY if config.rollback else None
    scheduler = adaptive if config.adaptive else steady
    jump = pdt_optax.Extrapolate(**{**shared, "criteria": CRITERIA[criteria]}, scheduler=scheduler)
    return Link(_after(config, jump), config.history, config.horizon)


def _verified(config: PDTConfig, streaming: pdt_optax.Streaming | None = None) -> Link:
    verify = pdt_optax.Verify(
        horizons=config.verify_horizons,
        predictors=config.verify_predictors,
        gain_share=config.verify_gain_share,
        history=streaming or config.history,
        start=config.start,
    )
    return _scored(config, verify, "train", streaming)


def _scored(
    config: PDTConfig,
    verify: pdt_optax.Verify,
    split: str,
    streaming: pdt_optax.Streaming | None = None,
) -> Link:
    held = streaming.rank + 1 if streaming else config.history
    candidates = len(verify.horizons) * len(verify.predictors)
    return Link(_after(config, verify), held, _VERIFY_POINTS, candidates, split)


def _after(
    config: PDTConfig, jump: pdt_optax.Extrapolate | pdt_optax.Verify | pdt_optax.Solve
) -> Callable[[optax.GradientTransformation], optax.GradientTransformation]:
    link = pdt_optax.pdt(
        config.snapshot_every, jump, scope=config.scope, history_dtype=config.history_dtype
    )
    join = pdt_optax.reset_momentum if config.reset_momentum else optax.chain
    return lambda optimizer: join(optimizer, link)

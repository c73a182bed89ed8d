"""What a run is: its settings with their defaults, checked when they are made.

A new setting is a field here. A field that `pdt_optax.Extrapolate` has as well is passed on to it.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from experiments.data import DATASETS, ORDERS
from experiments.ire.masks import MASKS
from experiments.models import MODELS
from experiments.runs.controls import CONTROLS
from experiments.runs.criteria import CRITERIA
from experiments.runs.optimizers import OPTIMIZERS, SCHEDULES, WITHOUT_MOMENTUM
from experiments.settings import Config, check, leaves, replaced, setting

PREDICTORS = ("dmd", "affine_dmd", "linear", "last_increment", "average")
HISTORY_DTYPES = ("float32", "bfloat16", "float16", "int8")
_OF_VERIFIED = ("history", "start", "history_dtype")


def refuse(is_wrong: Any, text: str) -> None:
    """Raises a ValueError with the text and a full stop, if something is wrong."""
    if is_wrong:
        raise ValueError(f"{text}.")


def _parsed(words: Sequence[str]) -> tuple[tuple[str, Any], ...]:
    """Words such as horizon=10."""
    kinds = {name: leaf.kind for name, leaf in leaves(PDTConfig)}
    found = []
    for word in words:
        name, _, value = word.partition("=")
        try:
            found.append((name, kinds[name](value)))
        except (KeyError, ValueError):
            raise ValueError(
                f"`pdt_vary` must be settings such as horizon=10, got {word}."
            ) from None
    return tuple(found)


class PDTConfig(Config):
    """Predictive Differential Training: which arms, and their settings."""

    criteria: tuple[str, ...] = setting(("paper",), "Masks, an arm each.", of=CRITERIA, key=True)
    vary: tuple[tuple[str, Any], ...] = setting(
        (),
        "More arms, each the first of the criteria, or `verified` if there is none, with one "
        "setting changed: horizon=10,interval=3,predictor=linear.",
        parse=_parsed,
    )
    horizon: int = setting(5, "Snapshots predicted ahead.", least=1)
    history: int = setting(5, "Snapshots that are fitted.", least=3)
    start: int | None = setting(
        None,
        "First snapshot period that may end in a prediction; by default the fifth, and of verified "
        "jumps not before step 100.",
        least=1,
    )
    interval: int = setting(1, "Snapshot periods without prediction after each one.", least=0)
    predictor: str = setting("dmd", "All but the first two are controls.", of=PREDICTORS)
    svd_rank: float | None = setting(
        None,
        "Rank of the DMD: -1 (full), 0 (Gavish-Donoho), an integer, the part of the energy that is "
        "kept; by default that of the criterion.",
        least=-1,
    )
    adaptive: bool = setting(False, "Predict less far and less often after bad predictions.")
    rollback: bool = setting(False, "Return to before a jump if the loss rises in the epoch after.")
    scope: str = setting("global", "One fit for all arrays, or for each.", of=("global", "leaf"))
    history_dtype: str | None = setting(
        None, "Type of the kept increments; by default that of the parameters.", of=HISTORY_DTYPES
    )
    snapshot_every: int = setting(0, "Steps between snapshots; 0 stands for one epoch.", least=0)
    reset_momentum: bool = setting(False, "Set the momentum to zero where a coordinate jumps.")
    switching: bool = setting(
        False,
        "Also an arm `switching`, a control: where PDT would predict all weights jump if that "
        "lowers the validation loss.",
    )
    verify: bool = setting(
        False, "Also an arm `verified`: jumps that lower the loss of some examples.", key=True
    )
    solve: bool = setting(
        False,
        "Also an arm `solved`: to the least loss of some examples in the span of the last moves.",
    )
    verify_horizons: tuple[int, ...] = setting((2, 5, 20), "Of its candidates.", least=1, some=True)
    verify_predictors: tuple[str, ...] = setting(
        ("linear",), "Of its candidates.", of=PREDICTORS, some=True
    )
    verify_examples: int = setting(512, "Training examples that are scored.", least=1)
    verify_gain_share: float = setting(
        0.5, "It takes the furthest with this part of the best gain; 1: the best.", above=0, most=1
    )
    streaming_ranks: tuple[int, ...] = setting(
        (),
        "Also arms `streaming_R`: as `verified`, fitting all snapshots in R directions.",
        least=1,
    )
    streaming_forgetting: float = setting(
        0.8, "Weight of an increment in those for each snapshot after it.", above=0, most=1
    )

    def __post_init__(self):
        check(self, "pdt_")
        rank = self.svd_rank
        whole = rank is None or rank == int(rank) or 0 < rank < 1
        refuse(not whole, f"`pdt_svd_rank` must be an integer or below 1, got {rank}")
        changed = {f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
        unread = {name for name in changed if name.startswith(("verify_", "streaming_"))}
        is_scored = self.verify or (self.solve and unread == {"verify_examples"})
        refuse(unread and not is_scored, f"`pdt_{min(unread, default='')}` needs `pdt_verify`")
        for name, value in self.vary:
            is_setting = hasattr(self, name) and name not in ("criteria", "vary", "snapshot_every")
            refuse(not is_setting, f"`pdt_vary` must be settings such as horizon=10, got {name}")
            dataclasses.replace(self, vary=(), **{name: value})
        if self.criteria:
            return
        is_any = self.verify or self.switching or self.solve
        refuse(not is_any, "`pdt_criteria` must be one or more, or give `pdt_verify`")
        blind = {"predictor", "svd_rank", "adaptive", "rollback"}
        unread = (blind if self.switching else blind | {"horizon", "interval"}) & changed
        unread |= {name for name, _ in self.vary if name not in _OF_VERIFIED or not self.verify}
        refuse(unread, f"`pdt_{min(unread, default='')}` needs `pdt_criteria`: it is not verified")


class IREConfig(Config):
    """Implicit regularization enhancement: which arms, and their settings."""

    kappa: float = setting(2.0, "Steps along flat coordinates are 1 + this as large.", least=0)
    masks: tuple[str, ...] = setting(
        ("flat",), "Which coordinates, an arm each; all but flat are controls.", of=MASKS, some=True
    )
    learning_rate: float | None = setting(
        None, "Peak learning rate of these arms; by default that of the run.", least=0
    )
    pdt: bool = setting(False, "Train each arm of PDT a second time, with IRE before it.")
    gamma: float = setting(0.6, "Part of the coordinates that is flat.", above=0, most=1)
    update_interval: int = setting(10, "Steps between estimates of the curvature.", least=1)
    warmup_steps: int = setting(0, "Steps before the first estimate.", least=0)
    num_chunks: int = setting(16, "Parts of a batch from which it is estimated.", least=1)

    def __post_init__(self):
        check(self, "ire_")


class RunConfig(Config):
    """What is trained, for how long, in which ways."""

    model: str = setting("fcn", "What is trained.", of=MODELS, key=True)
    dataset: str = setting("mnist5k", "What it is trained on.", of=DATASETS, key=True)
    model_width: float = setting(1.0, "Multiple of its numbers of channels or units.", above=0)
    model_depth: float = setting(1.0, "Multiple of the blocks of a vision transformer.", above=0)
    resolution: int | None = setting(None, "Pixels a side to which images are resized.", least=1)
    batch_order: str = setting("shuffled", "Batches of all classes, or of one each.", of=ORDERS)
    optimizer: str = setting("sgd", "The base optimizer.", of=OPTIMIZERS, key=True)
    learning_rate: float = setting(0.01, "Its peak learning rate.", least=0, key=True)
    schedule: str = setting("constant", "Learning rate over the run.", of=SCHEDULES)
    minimum_learning_rate: float = setting(0.0, "Where a cosine ends.", least=0)
    warmup_epochs: int = setting(0, "Passes over which a cosine rises from a tenth.", least=0)
    restart_epoch: int = setting(
        0, "Pass from which a cosine falls anew, from ten times its minimum; 0 for none.", least=0
    )
    momentum: float = setting(0.9, "Coefficient of the optimizer momentum.", least=0, most=1)
    weight_decay: float = setting(
        0.0, "Decoupled for adamw, lamb and muon; an L2 term of the gradient for others.", least=0
    )
    batch_size: int = setting(256, "Examples a step.", least=1, key=True)
    epochs: int = setting(60, "Passes over the train split.", least=1, key=True)
    seeds: tuple[int, ...] = setting(
        (0,), "Initialisations and orders of batches.", least=0, some=True, key=True
    )
    baseline: bool = setting(False, "Also train the optimizer alone, beside PDT.", key=True)
    lr_grid: tuple[float, ...] = setting(
        (), "Instead of all else the optimizer alone is tuned over these learning rates.", above=0
    )
    short_epochs: int = setting(
        0, "Also an arm `short`, a control: a schedule cut to so many epochs.", least=0
    )
    retuned_learning_rate: float | None = setting(
        None, "Also an arm `retuned`, a control: the optimizer alone with this rate.", above=0
    )
    controls: tuple[str, ...] = setting(
        (), "Other gains from past weights, an arm each.", of=CONTROLS
    )
    pdt: PDTConfig | None = setting(None, "Train with Predictive Differential Training.", key=True)
    ire: IREConfig | None = setting(None, "Train with implicit regularization enhancement.")

    def __post_init__(self):
        super().__post_init__()
        constant, pdt, ire = self.schedule == "constant", self.pdt, self.ire
        others = self.baseline, self.short_epochs, self.retuned_learning_rate, self.controls, pdt
        rises = 0 < self.warmup_epochs < self.epochs and not constant
        falls_anew = self.warmup_epochs < self.restart_epoch < self.epochs
        refuse(self.lr_grid and any(others), "`lr_grid` trains the optimizer alone; no other arms")
        refuse(not constant and not self.learning_rate, "`learning_rate` must be above 0")
        refuse(constant and self.minimum_learning_rate, "`minimum_learning_rate` needs a cosine")
        refuse(self.warmup_epochs and not rises, "`warmup_epochs` needs a cosine, more `epochs`")
        refuse(
            self.restart_epoch and not (falls_anew and self.minimum_learning_rate),
            "`restart_epoch` needs a cosine, a `minimum_learning_rate`, fewer `warmup_epochs` and "
            "more `epochs`",
        )
        refuse(
            self.momentum != 0.9 and self.optimizer != "momentum",
            "`momentum` needs the `optimizer` momentum",
        )
        refuse(
            self.short_epochs >= self.epochs,
            f"`short_epochs` must be below `epochs`, got {self.short_epochs}",
        )
        refuse(
            pdt and pdt.reset_momentum and self.optimizer in WITHOUT_MOMENTUM,
            f"`pdt_reset_momentum`: the `optimizer` {self.optimizer} has no momentum",
        )
        if ire:
            divided = self.batch_size > ire.num_chunks and self.batch_size % ire.num_chunks
            refuse(ire.pdt and not pdt, "`ire_pdt` needs `pdt`")
            refuse(self.lr_grid and len(ire.masks) > 1, "`lr_grid` tunes one of `ire_masks`")
            rule = f"a multiple of `ire_num_chunks`, got {self.batch_size}"
            refuse(divided, f"`batch_size` must be {rule}")
        for name in self.controls:
            known = CONTROLS[name].optimizers or OPTIMIZERS
            is_other = self.optimizer not in known
            refuse(is_other, f"`controls` {name} needs `optimizer` of {', '.join(known)}")


Studies = Mapping[str, Mapping[str, RunConfig]]  # Study -> name of a run -> its configuration.


def run(*parts: Mapping[str, Any], **given: Any) -> RunConfig:
    """A run by the flat names of its settings; of parts that name the same the last one counts."""
    merged: dict[str, Any] = {}
    for part in (*parts, given):
        merged |= part
    return replaced(RunConfig(), **merged)


def sweep(name: str, *values: Any) -> dict[str, Any]:
    """Arms of PDT with each value of one of its settings."""
    return {"pdt_vary": tuple((name, value) for value in values)}


def find(studies: Studies, place: str) -> RunConfig:
    """A run of a study, named as `table2/adam`; a ValueError if there is none."""
    known = {f"{study}/{name}": run for study in studies for name, run in studies[study].items()}
    refuse(place not in known, f"`config` must name a run such as {next(iter(known))}, got {place}")
    return known[place]

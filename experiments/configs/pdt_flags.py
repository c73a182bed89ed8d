"""The flags of Predictive Differential Training, and the links of the chain that they describe."""

from collections.abc import Callable, Mapping, Sequence
import sys
from typing import Any, NamedTuple

from absl import flags
import jax
import jax.numpy as jnp
import optax

from experiments.configs.flag_checks import is_distinct, is_integers
from experiments.runs.optimizers import WITHOUT_MOMENTUM
import pdt_optax

Criteria = str | pdt_optax.criteria.Criterion


def _random_like(criteria: str) -> pdt_optax.criteria.Criterion:
    """Of each array of a proposal as many coordinates, at random, as `criteria` accepts."""
    criterion = pdt_optax.criteria.all_of(criteria)

    def random(proposal: pdt_optax.criteria.Proposal) -> jax.Array:
        moves = proposal.move != 0
        ratio = jnp.sum(criterion(proposal) & moves) / jnp.maximum(jnp.sum(moves), 1)
        event_key = jax.random.fold_in(jax.random.key(0), proposal.event)
        leaf_key = jax.random.fold_in(event_key, proposal.leaf)
        return jax.random.bernoulli(leaf_key, ratio, proposal.move.shape)

    return random


def _random_subset(proposal: pdt_optax.criteria.Proposal) -> jax.Array:
    """As many as the paper accelerates at random, wherever they lead."""
    return pdt_optax.criteria.random_mask(0.18, jax.random.key(0))(proposal)


CRITERIA: Mapping[str, Criteria] = {
    "paper": "paper",
    "bounded": "bounded",
    "reference": "reference",
    # The two halves of `paper`, and of `reference`.
    "magnitude": pdt_optax.criteria.magnitude_bounds(lower=lambda horizon: horizon),
    "sign": pdt_optax.criteria.path_sign(),
    "reference_magnitude": pdt_optax.criteria.magnitude_bounds(1.0, lambda horizon: horizon + 1.0),
    "reference_sign": pdt_optax.criteria.final_sign(),
    # Controls: a random mask of the ratio of `paper`, one of a fixed ratio, and none (Tano et al.
    # 2020).
    "random": _random_like("paper"),
    "random_subset": _random_subset,
    "accept_all": pdt_optax.criteria.accept_all(),
}
HISTORY_DTYPES = ("float32", "bfloat16", "float16", "int8")
PREDICTORS = ("dmd", "affine_dmd", "linear", "last_increment", "average")
_DMDS = {"dmd": pdt_optax.predictors.dmd, "affine_dmd": pdt_optax.predictors.affine_dmd}
# Of --pdt_rollback alone: a way back, and the horizon and the interval as they are given.
_STEADY = pdt_optax.Adaptive(
    max_error=float("inf"), shrink=1.0, grow=1.0, max_interval=0, rollback=True
)

# Points at which the path of a verified jump is judged.
_VERIFY_POINTS = 5

PDT = flags.DEFINE_bool("pdt", False, "Train with Predictive Differential Training.")
_CRITERIA = flags.DEFINE_list(
    "pdt_criteria",
    ["paper"],
    f"Masks, one arm each, of {', '.join(CRITERIA)}. accept_all is the non-selective control.",
)
_VARY = flags.DEFINE_list(
    "pdt_vary",
    [],
    "More arms, each the first of --pdt_criteria, or `verified` if there is none, with one setting "
    "changed, e.g. horizon=10,interval=3,start=20,history=8,predictor=linear,history_dtype=int8.",
)
_HISTORY = flags.DEFINE_integer("pdt_history", 5, "Snapshots that are fitted.", lower_bound=3)
_HORIZON = flags.DEFINE_integer("pdt_horizon", 5, "Snapshots predicted ahead.", lower_bound=1)
_START = flags.DEFINE_integer(
    "pdt_start", 5, "First snapshot period that may end in a prediction.", lower_bound=1
)
_INTERVAL = flags.DEFINE_integer(
    "pdt_interval", 1, "Snapshot periods without prediction after each one.", lower_bound=0
)
_PREDICTOR = flags.DEFINE_enum(
    "pdt_predictor",
    "dmd",
    PREDICTORS,
    "How the snapshots are extrapolated; all but the first two are controls.",
)
_SVD_RANK = flags.DEFINE_string(
    "pdt_svd_rank",
    "preset",
    "Rank of the DMD: preset (that of the criterion), -1 (full), 0 (Gavish-Donoho), a positive "
    "integer, or the fraction of the energy that is kept.",
)
_SCOPE = flags.DEFINE_enum(
    "pdt_scope", "global", ["global", "leaf"], "One fit for all parameters, or one per array."
)
_HISTORY_DTYPE = flags.DEFINE_enum(
    "pdt_history_dtype",
    None,
    HISTORY_DTYPES,
    "Type in which the increments are kept; by default that of the parameters.",
)
_SNAPSHOT_EVERY = flags.DEFINE_integer(
    "pdt_snapshot_every", 0, "Steps between snapshots; 0 stands for one epoch.", lower_bound=0
)
_ADAPTIVE = flags.DEFINE_bool(
    "pdt_adaptive", False, "Predict less far and less often after bad predictions."
)
_ROLLBACK = flags.DEFINE_bool(
    "pdt_rollback", False, "Return to before a jump if the loss rises over the epoch after it."
)
_RESET_MOMENTUM = flags.DEFINE_bool(
    "pdt_reset_momentum",
    False,
    "Where a coordinate jumps, set the optimizer's momentum to zero; for optimizers that have one.",
)
_SWITCHING = flags.DEFINE_bool(
    "pdt_switching",
    False,
    "Also train an arm `switching`, a control: where PDT would predict all weights jump to the "
    "prediction if that lowers the validation loss.",
)
_VERIFY = flags.DEFINE_bool(
    "pdt_verify",
    False,
    "Also train an arm `verified`: at every snapshot the jumps to --pdt_verify_horizons by "
    "--pdt_verify_predictors are scored on --pdt_verify_examples training examples, and the "
    "furthest one is made that keeps --pdt_verify_gain_share of the best gain.",
)
_VERIFY_HORIZONS = flags.DEFINE_list(
    "pdt_verify_horizons", ["2", "5", "20"], "Snapshots predicted ahead, one candidate each."
)
_VERIFY_PREDICTORS = flags.DEFINE_list(
    "pdt_verify_predictors", ["dmd", "linear"], f"Of {', '.join(PREDICTORS)}, a candidate each."
)
_STREAMING_RANKS = flags.DEFINE_list(
    "pdt_streaming_ranks",
    [],
    "Ranks; also train an arm `streaming_R` for each: as `verified`, but all snapshots so far are "
    "fitted, in R directions.",
)
_FORGETTING = flags.DEFINE_float(
    "pdt_streaming_forgetting",
    0.8,
    "Weight of an increment in those arms for each snapshot after it.",
    lower_bound=0.0,
    upper_bound=1.0,
)
VERIFY_EXAMPLES = flags.DEFINE_integer(
    "pdt_verify_examples", 512, "Training examples on which candidates are scored.", lower_bound=1
)
_VERIFY_GAIN_SHARE = flags.DEFINE_float(
    "pdt_verify_gain_share",
    0.5,
    "Of the candidates with this share of the best gain the furthest is taken; 1: the best.",
    lower_bound=0.0,
    upper_bound=1.0,
)


class Link(NamedTuple):
    """PDT after the optimizer of an arm.

    Attributes:
      after: optimizer -> that with PDT.
      history: arrays held for each parameter.
      points: points of a predicted path.
      candidates: jumps that are scored at an event; 0 for the one that is made blind.
      scores_on: split whose loss is the `value_fn` of verified jumps.
    """

    after: Callable[[optax.GradientTransformation], optax.GradientTransformation]
    history: int
    points: int
    candidates: int = 0
    scores_on: str = "train"


class _Settings(NamedTuple):
    history: int | pdt_optax.Streaming
    horizon: int
    start: int
    interval: int
    predictor: str
    history_dtype: str | None


_VARIES_VERIFIED = ("history=", "start=", "history_dtype=")


def _varied(word: str) -> dict[str, Any] | None:
    """The changed setting of --pdt_vary; None if there is no such."""
    name, _, value = word.partition("=")
    names = {"predictor": PREDICTORS, "history_dtype": HISTORY_DTYPES}
    if name in names:
        return {name: value} if value in names[name] else None
    least = {"history": 3, "horizon": 1, "start": 1, "interval": 0}
    valid = name in least and value.isdecimal() and int(value) >= least[name]
    return {name: int(value)} if valid else None


def _svd_rank(text: str) -> float | None:
    if text == "preset":
        return None
    return float(text) if "." in text else int(text)


def _is_svd_rank(text: str) -> bool:
    try:
        rank = _svd_rank(text)
    except ValueError:
        return False
    return rank is None or (0 < rank < 1 if isinstance(rank, float) else rank >= -1)


flags.register_validator("pdt_verify_gain_share", lambda share: share > 0, "must be above 0.")
flags.register_validator(
    "pdt_criteria", lambda names: set(names) <= set(CRITERIA), f"must be of {', '.join(CRITERIA)}."
)
flags.register_multi_flags_validator(
    ["pdt_criteria", "pdt_verify", "pdt_switching"],
    lambda flag: (
        (not flag["pdt_criteria"] and (flag["pdt_verify"] or flag["pdt_switching"]))
        or is_distinct(flag["pdt_criteria"])
    ),
    "must be one or more different ones without --pdt_verify and --pdt_switching.",
)
flags.register_validator(
    "pdt_vary",
    lambda words: len(words) == len(set(words)) and None not in map(_varied, words),
    "must be different ones of horizon=, interval=, start=, history= with an integer or "
    "predictor=, history_dtype= with a name.",
)
flags.register_multi_flags_validator(
    ["pdt_vary", "pdt_criteria", "pdt_verify"],
    lambda flag: (
        flag["pdt_criteria"]
        or not flag["pdt_vary"]
        or (flag["pdt_verify"] and all(w.startswith(_VARIES_VERIFIED) for w in flag["pdt_vary"]))
    ),
    "--pdt_vary needs one of --pdt_criteria, or --pdt_verify and only history=, start=, "
    "history_dtype=.",
)
flags.register_validator(
    "pdt_verify_horizons",
    lambda words: is_integers(words) and is_distinct(words) and "0" not in words,
    "must be different integers from 1.",
)
flags.register_validator(
    "pdt_streaming_ranks",
    lambda words: not words or (is_integers(words) and is_distinct(words) and "0" not in words),
    "must be different integers from 1.",
)
flags.register_validator("pdt_streaming_forgetting", lambda f: f > 0, "must be above 0.")
flags.register_validator(
    "pdt_verify_predictors",
    lambda names: is_distinct(names) and set(names) <= set(PREDICTORS),
    f"must be different ones of {', '.join(PREDICTORS)}.",
)
flags.register_validator(
    "pdt_svd_rank", _is_svd_rank, "must be preset, an integer from -1, or a fraction such as 0.99."
)


def check(given: Sequence[str], optimizer: str) -> None:
    """Stops the program if the flags `given` on the command line do not fit together."""
    if _RESET_MOMENTUM.value and optimizer in WITHOUT_MOMENTUM:
        sys.exit(f"flag --pdt_reset_momentum: --optimizer={optimizer} has no momentum.")
    stray = [name for name in given if name.startswith("pdt_")]
    if stray and not PDT.value:
        sys.exit(f"flag --{stray[0]}: needs --pdt.")
    stray = [name for name in given if name.startswith(("pdt_verify_", "pdt_streaming_"))]
    if stray and not _VERIFY.value:
        sys.exit(f"flag --{stray[0]}: needs --pdt_verify.")
    if _CRITERIA.value:
        return
    blind = ("pdt_predictor", "pdt_svd_rank", "pdt_adaptive", "pdt_rollback")
    unread = blind if _SWITCHING.value else (*blind, "pdt_horizon", "pdt_interval")
    stray = [name for name in given if name in unread]
    if stray:
        sys.exit(f"flag --{stray[0]}: is of jumps that are not verified; needs --pdt_criteria.")


def links(steps_per_epoch: int) -> dict[str, Link]:
    """The last link of the chain of each arm, by the arm's name; none without --pdt."""
    if not PDT.value:
        return {}
    every = _SNAPSHOT_EVERY.value or steps_per_epoch
    settings = _Settings(
        _HISTORY.value,
        _HORIZON.value,
        _START.value,
        _INTERVAL.value,
        _PREDICTOR.value,
        _HISTORY_DTYPE.value,
    )
    found = {name: _blind(every, name, settings) for name in _CRITERIA.value}
    for word in _VARY.value:
        changed = settings._replace(**(_varied(word) or {}))
        if _CRITERIA.value:
            found[word] = _blind(every, _CRITERIA.value[0], changed)
        else:
            found[word] = _verified(every, changed)
    if _VERIFY.value:
        found["verified"] = _verified(every, settings)
    for word in _STREAMING_RANKS.value:
        streaming = pdt_optax.Streaming(int(word), _FORGETTING.value)
        found[f"streaming_{word}"] = _verified(every, settings._replace(history=streaming))
    if _SWITCHING.value:
        found["switching"] = _switching(every, settings)
    return found


def _blind(every: int, criteria: str, settings: _Settings) -> Link:
    jump = pdt_optax.Extrapolate(
        criteria=CRITERIA[criteria],
        horizon=settings.horizon,
        history=settings.history,
        start=settings.start,
        interval=settings.interval,
        predictor=_predictor(settings.predictor),
        scheduler=_scheduler(),
    )
    after = _after(every, jump, settings.history_dtype)
    return Link(after, _arrays(settings.history), settings.horizon)


def _predictor(name: str) -> str | pdt_optax.predictors.Predictor:
    """With the rank of --pdt_svd_rank, if it is a DMD."""
    rank = _svd_rank(_SVD_RANK.value)
    if rank is None or name not in _DMDS:
        return name
    return _DMDS[name](rank)


def _scheduler() -> pdt_optax.Adaptive | None:
    if _ADAPTIVE.value:
        return pdt_optax.Adaptive(rollback=_ROLLBACK.value)
    return _STEADY if _ROLLBACK.value else None


def _switching(every: int, settings: _Settings) -> Link:
    everything = pdt_optax.Verify(
        (settings.horizon,),
        ("dmd",),
        pdt_optax.criteria.accept_all(),
        history=settings.history,
        start=settings.start,
        interval=settings.interval,
    )
    return _scored(every, everything, settings, "validation")


def _verified(every: int, settings: _Settings) -> Link:
    verify = pdt_optax.Verify(
        horizons=tuple(int(horizon) for horizon in _VERIFY_HORIZONS.value),
        predictors=tuple(_VERIFY_PREDICTORS.value),
        gain_share=_VERIFY_GAIN_SHARE.value,
        history=settings.history,
        start=settings.start,
    )
    return _scored(every, verify, settings, "train")


def _scored(every: int, verify: pdt_optax.Verify, settings: _Settings, split: str) -> Link:
    after = _after(every, verify, settings.history_dtype)
    candidates = len(verify.horizons) * len(verify.predictors)
    return Link(after, _arrays(settings.history), _VERIFY_POINTS, candidates, split)


def _after(
    every: int, jump: pdt_optax.Extrapolate | pdt_optax.Verify, history_dtype: str | None
) -> Callable[[optax.GradientTransformation], optax.GradientTransformation]:
    link = pdt_optax.pdt(every, jump, scope=_SCOPE.value, history_dtype=history_dtype)
    join = pdt_optax.reset_momentum if _RESET_MOMENTUM.value else optax.chain
    return lambda optimizer: join(optimizer, link)


def _arrays(history: int | pdt_optax.Streaming) -> int:
    """Held for each parameter."""
    return history if isinstance(history, int) else history.rank + 1

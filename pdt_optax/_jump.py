"""What all ways of jumping have."""

from collections.abc import Callable, Mapping
import functools
import inspect
from typing import Any
import warnings

from pdt_optax import _checks
from pdt_optax._core import Core
from pdt_optax._event import Event
from pdt_optax._landing import Landing
from pdt_optax._ring import Ring, as_history
from pdt_optax._streaming import Streaming

WRAPPERS = (
    "Some wrappers hand no extra arguments on, such as linen's TrainState: call its `tx.update` "
    "yourself, as in docs/recipes.md."
)


class Jump:
    """Decides where weights land at the end of a snapshot period.

    Attributes:
      history: snapshots kept, or a :class:`pdt_optax.Streaming`.
      start: the first jump may come at the end of this period, counted from 1; None if it
        depends on the length of a period.
      interval: least number of periods without a prediction between two.
      damping: the first of the damping that its landings hand on.
      scope: leaves that share coefficients, if nothing else is asked for.
      takes_residuals: whether it takes ``residual_fn``.
      has_dmd: whether it fits a DMD, whose operators are reported.
    """

    history: int | Streaming
    start: int | None
    interval: int
    damping: float = 0.0
    scope: str = "global"
    takes_residuals = False
    has_dmd = False

    @property
    def kind(self) -> Ring | Streaming:
        """The history."""
        return as_history(self.history)

    def first_period(self, snapshot_every: int) -> int:
        """The period at whose end the first jump may come, for so many steps in a period."""
        del snapshot_every
        return self.start or 1

    def check_passed(self, given: Mapping[str, Any]) -> None:
        """Raises ValueError unless the extra arguments of ``update`` are there that it needs."""

    def functions(self, core: Core, updates: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """What `land` takes, of the extra arguments of ``update``."""
        del core, updates, given
        return {}

    def land(self, event: Event, **functions: Any) -> Landing:
        """Where the weights land."""
        raise NotImplementedError


def check_jump(jump: Any) -> None:
    """Raises ValueError unless it is a way of jumping."""
    if not isinstance(jump, Jump):
        is_class = isinstance(jump, type) and issubclass(jump, Jump)
        hint = f" Call it: pdt_optax.{jump.__name__}()." if is_class else ""
        raise ValueError(
            "`jump` must be a way of jumping, such as pdt_optax.Solve() or "
            f"pdt_optax.Verify(); got {jump!r}.{hint}"
        )


def with_extras(fn: Callable[..., Any], given: Mapping[str, Any]) -> Callable[[Any], Any]:
    """A function of parameters that is given the extra arguments that it takes by name.

    As optax's line searches have it.
    """
    try:
        names = list(inspect.signature(fn).parameters)[1:]
    except (TypeError, ValueError):  # A function that Python knows no signature of.
        return fn
    return functools.partial(fn, **{name: given[name] for name in names if name in given})


def check_passed(name: str, given: Mapping[str, Any], example: str) -> None:
    """Raises ValueError if an extra argument of ``update`` is missing."""
    is_other = given.get("residual_fn") is not None
    hint = "`residual_fn`, which is there, is for pdt_optax.Solve." if is_other else WRAPPERS
    _checks.check_passed(name, given.get(name), f"params, {name}={example}", f" {hint}")


def check_function(name: str, given: Mapping[str, Any]) -> None:
    """Raises ValueError if an extra argument of ``update`` is there and is no function."""
    value = given.get(name)
    if value is not None and not callable(value):
        example = "residuals" if name == "residual_fn" else "loss"
        raise ValueError(
            f"`{name}` must be a function of the parameters, such as `{example}` and not "
            f"`{example}(params)`; got {type(value).__name__}."
        )


def warn_of_residuals(jump: Jump, given: Mapping[str, Any]) -> None:
    """Warns of ``residual_fn`` where nothing takes it.

    No link of optax does. ``value`` and ``value_fn`` may be meant for another link, and some
    programs pass them to every optimizer: of these nothing can be said.
    """
    if given.get("residual_fn") is not None and not jump.takes_residuals:
        warnings.warn(
            f"`residual_fn` is ignored: pdt_optax.{type(jump).__name__} does not take it, "
            "pdt_optax.Solve does.",
            stacklevel=2,
        )

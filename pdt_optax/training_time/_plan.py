"""What is to be predicted, apart from the examples."""

import dataclasses
import math
from typing import Any, Literal

import jax
import numpy as np

from pdt_optax._checks import is_int, is_number
from pdt_optax.training_time import _kernel
from pdt_optax.training_time._dynamics import Sampling, check_sampling
from pdt_optax.training_time._gradients import ApplyFn, Network
from pdt_optax.training_time._losses import LossFn
from pdt_optax.training_time._settings import SGD

Reference = Literal["initial", "final", "absolute"]
_EXACT_SIZE = 3000
_PROJECT_ABOVE_BYTES = 2**30


@dataclasses.dataclass(frozen=True)
class Plan:
    """Arguments of :func:`pdt_optax.training_time.predict_training_time`, checked."""

    apply_fn: ApplyFn
    params: Any
    loss: LossFn
    optimizer: SGD
    batch_size: int | None
    max_steps: int
    threshold: float | None
    relative: float | None
    reference: Reference
    kernel: str | _kernel.EmpiricalKernel
    projection_dim: int | None
    num_cotangents: int
    linearizations: int
    sampling: Sampling

    def __post_init__(self):
        form = self.kernel.form if isinstance(self.kernel, _kernel.EmpiricalKernel) else self.kernel
        if not isinstance(form, str):
            raise ValueError(
                "`kernel` must be a name or a pdt_optax.training_time.EmpiricalKernel, got "
                f"{type(form).__name__}."
            )
        form = "exact" if form == "auto" else form
        _kernel.check_kernel_arguments(form, self.num_cotangents, self.projection_dim)
        for name in ("max_steps", "linearizations"):
            if not is_int(getattr(self, name), 1):
                raise ValueError(
                    f"`{name}` must be an int of at least 1, got {getattr(self, name)!r}."
                )
        check_sampling(self.sampling)
        self._check_target()

    def _check_target(self) -> None:
        threshold, reference = self.threshold, self.reference
        relative: Any = self.relative
        if reference not in ("initial", "final", "absolute"):
            raise ValueError(
                f"`reference` must be 'initial', 'final' or 'absolute'; got {reference!r}."
            )
        if (threshold is None) == (relative is None):
            raise ValueError(
                "give exactly one of `threshold` and `relative`, "
                f"got {threshold!r} and {relative!r}."
            )
        if threshold is not None:
            if not is_number(threshold) or not math.isfinite(threshold):
                raise ValueError(f"`threshold` must be a finite number, got {threshold!r}.")
            return
        least = 1 if reference == "final" else 0
        if not is_number(relative) or not 0 < relative < math.inf or relative < least:
            must = "at least 1 with `reference='final'`" if least else "positive"
            raise ValueError(f"`relative` must be {must}, got {relative!r}.")
        if reference == "final" and self.linearizations > 1:
            raise ValueError("`linearizations` must be 1 with `reference='final'`.")

    @property
    def needs_final_loss(self) -> bool:
        """Whether the loss to reach is known only once the curve is."""
        return self.threshold is None and self.reference == "final"

    def loss_to_reach(self, initial: float, final: float = math.nan) -> float:
        """The threshold, from the losses at the start and at the end."""
        if self.threshold is not None:
            return float(self.threshold)
        assert self.relative is not None
        return self.relative * {"initial": initial, "final": final, "absolute": 1.0}[self.reference]

    def kernel_of(
        self, network: Network, num_outputs: int, key: jax.Array
    ) -> _kernel.EmpiricalKernel:
        """The kernel of a network, its form and projection chosen where left open."""
        size = len(network.inputs)
        form: Any = self.kernel
        if isinstance(form, _kernel.EmpiricalKernel):
            form = form.form
        if form == "auto":
            fits = 4 * size * num_outputs * network.size <= _kernel.GRADIENT_BYTES
            form = "exact" if size * num_outputs <= _EXACT_SIZE and fits else "class_block"
        dim = self.projection_dim
        is_large = 4 * size * network.size > _PROJECT_ABOVE_BYTES
        if dim is None and form != "exact" and is_large:
            dim = max(2 * size, 2000)
        return _kernel.compute(
            network,
            num_outputs,
            form=form,
            num_cotangents=self.num_cotangents,
            projection_dim=dim,
            key=key,
        )

    def origin_of(self, network: Network) -> np.ndarray | None:
        """The change of the outputs along the weights, which weight decay needs."""
        return network.pushforward(network.leaves) if self.optimizer.weight_decay else None

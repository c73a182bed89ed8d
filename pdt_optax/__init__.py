"""Predictive Differential Training: train faster along predicted dynamics."""

from pdt_optax._criteria import (
    Criterion,
    Proposal,
    accept_all,
    all_of,
    final_sign,
    magnitude_bounds,
    path_sign,
    random_mask,
)
from pdt_optax._curvature import gauss_newton, given_curvature, sampled_label_fisher
from pdt_optax._diagnostics import Metrics, metrics
from pdt_optax._dmd import Gram
from pdt_optax._ire import IREState, ire, scale_by_ire
from pdt_optax._pdt import PDTState, pdt
from pdt_optax._predictors import Predictor, affine_dmd, average, dmd, last_increment, linear
from pdt_optax._schedule import Adaptive
from pdt_optax._verify import Verify

__version__ = "0.1.0"

__all__ = [
    "Adaptive",
    "Criterion",
    "Gram",
    "IREState",
    "Metrics",
    "PDTState",
    "Predictor",
    "Proposal",
    "Verify",
    "accept_all",
    "affine_dmd",
    "all_of",
    "average",
    "dmd",
    "final_sign",
    "gauss_newton",
    "given_curvature",
    "ire",
    "last_increment",
    "linear",
    "magnitude_bounds",
    "metrics",
    "path_sign",
    "pdt",
    "random_mask",
    "sampled_label_fisher",
    "scale_by_ire",
]

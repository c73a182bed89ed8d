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
from pdt_optax._paths import predicted_path, prediction_errors
from pdt_optax._pdt import pdt
from pdt_optax._predictors import Predictor, affine_dmd, average, dmd, last_increment, linear
from pdt_optax._restore import restore_types
from pdt_optax._schedule import Adaptive
from pdt_optax._sharding import state_shardings
from pdt_optax._snapshots import snapshots
from pdt_optax._spectrum import Spectrum, spectral_distance, spectrum
from pdt_optax._state import PDTState
from pdt_optax._streaming import Streaming
from pdt_optax._training_time import (
    EmpiricalKernel,
    MSECurve,
    TrainingTimePrediction,
    Trajectory,
    empirical_kernel,
    function_space_sgd,
    mse_curve,
    predict_training_time,
    sample_batches,
    steps_to_threshold,
)
from pdt_optax._verify import Verify

__version__ = "0.1.0"

__all__ = [
    "Adaptive",
    "Criterion",
    "EmpiricalKernel",
    "Gram",
    "IREState",
    "MSECurve",
    "Metrics",
    "PDTState",
    "Predictor",
    "Proposal",
    "Spectrum",
    "Streaming",
    "TrainingTimePrediction",
    "Trajectory",
    "Verify",
    "accept_all",
    "affine_dmd",
    "all_of",
    "average",
    "dmd",
    "empirical_kernel",
    "final_sign",
    "function_space_sgd",
    "gauss_newton",
    "given_curvature",
    "ire",
    "last_increment",
    "linear",
    "magnitude_bounds",
    "metrics",
    "mse_curve",
    "path_sign",
    "pdt",
    "predict_training_time",
    "predicted_path",
    "prediction_errors",
    "random_mask",
    "restore_types",
    "sample_batches",
    "sampled_label_fisher",
    "scale_by_ire",
    "snapshots",
    "spectral_distance",
    "spectrum",
    "state_shardings",
    "steps_to_threshold",
]

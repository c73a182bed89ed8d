"""Predicting training time without training: the linearised network's loss curve."""

from pdt_optax.training_time._closed_form import MSECurve, mse_curve
from pdt_optax.training_time._dynamics import Trajectory, function_space_sgd, sample_batches
from pdt_optax.training_time._kernel import EmpiricalKernel, empirical_kernel
from pdt_optax.training_time._predict import predict_training_time
from pdt_optax.training_time._prediction import TrainingTimePrediction
from pdt_optax.training_time._steps import steps_to_threshold

__all__ = [
    "EmpiricalKernel",
    "MSECurve",
    "TrainingTimePrediction",
    "Trajectory",
    "empirical_kernel",
    "function_space_sgd",
    "mse_curve",
    "predict_training_time",
    "sample_batches",
    "steps_to_threshold",
]

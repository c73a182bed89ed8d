"""Snapshots of a run, their Koopman spectrum, and how far ahead they can be predicted."""

from pdt_optax._paths import predicted_path, prediction_errors
from pdt_optax._snapshots import snapshots
from pdt_optax._spectrum import Spectrum, spectral_distance, spectrum

__all__ = [
    "Spectrum",
    "predicted_path",
    "prediction_errors",
    "snapshots",
    "spectral_distance",
    "spectrum",
]

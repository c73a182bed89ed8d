"""Implicit regularization enhancement (IRE): larger steps along the flat coordinates."""

from pdt_optax.ire._curvature import gauss_newton, given_curvature, sampled_label_fisher
from pdt_optax.ire._ire import IREState, ire, scale_by_ire

__all__ = [
    "IREState",
    "gauss_newton",
    "given_curvature",
    "ire",
    "sampled_label_fisher",
    "scale_by_ire",
]

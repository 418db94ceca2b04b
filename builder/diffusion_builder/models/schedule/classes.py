"""Which schedulers are supported, and what diffusers' class of each knows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


SDE = "sde-dpmsolver++"
"""DPM-Solver++ of the stochastic equation."""


class SchedulerType(StrEnum):
    """Schedulers that are supported, by the names of their classes in diffusers without what all of them share."""

    DDIM = "DDIM"
    DDPM = "DDPM"
    EULER = "Euler"
    EULER_ANCESTRAL = "EulerAncestral"
    HEUN = "Heun"
    LCM = "LCM"
    TCD = "TCD"
    PNDM = "PNDM"
    DPM_SOLVER_MULTISTEP = "DPMSolverMultistep"
    DEIS_MULTISTEP = "DEISMultistep"
    UNIPC_MULTISTEP = "UniPCMultistep"
    EDM_EULER = "EDMEuler"
    EDM_DPM_SOLVER_MULTISTEP = "EDMDPMSolverMultistep"


EDM = (SchedulerType.EDM_EULER, SchedulerType.EDM_DPM_SOLVER_MULTISTEP)
"""Schedulers of models in the formulation of EDM."""


@dataclass(frozen=True)
class SchedulerClass:
    """A class of diffusers: its parameters with their defaults.

    Args:
        defaults: parameter to default; those that `SchedulerSettings` lacks are only checked.
        supported: parameter to the values that are supported, where the type alone does not say it.
        read_as: values that other classes use, which this one reads as its own.
        implied: settings that it has without a parameter for them.
    """

    defaults: Mapping[str, Any]
    supported: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    read_as: Mapping[str, Mapping[object, object]] = field(default_factory=dict)
    implied: Mapping[str, object] = field(default_factory=dict)


_ALL = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
}
_ZERO_SNR = {"rescale_betas_zero_snr": False}
_BETA_SIGMAS = {"use_beta_sigmas": False}
_SIGMAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, **_BETA_SIGMAS}
_FLOW = {"use_flow_sigmas": False, "use_dynamic_shifting": False}
_MULTISTEP = {**_ALL, **_SIGMAS, **_FLOW, "thresholding": False, "solver_order": 2, "lower_order_final": True}
_SIGMA_LIMITS = {"sigma_min": None, "sigma_max": None}
_THRESHOLDING = {"thresholding": False}
_EULER_ONLY = {"interpolation_type": "linear", "timestep_type": "discrete", **_SIGMA_LIMITS}
_DPM_ONLY = {"use_lu_lambdas": False, "variance_type": None}
# Those of models that predict no variance of their own.
_FIXED = ("fixed_small", "fixed_small_log", "fixed_large")
_TO_ZERO = {"final_sigmas_type": "zero"}
_NOT_SAMPLE = {"prediction_type": ("epsilon", "v_prediction")}


_EDM = {
    "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "sigma_schedule": "karras", "num_train_timesteps": 1000,
    "prediction_type": "epsilon", "rho": 7.0, "final_sigmas_type": "zero",
}  # fmt: skip
# What other schedulers have parameters for, and these read nothing of.
_NO_BETAS = {
    "beta_start": 0.0, "beta_end": 0.0, "beta_schedule": "linear", "trained_betas": None, "timestep_spacing": "leading",
}  # fmt: skip


def _off(*parameters: Mapping[str, object]) -> dict[str, tuple[object, ...]]:
    """Parameters that are supported with their defaults only."""
    return {name: (default,) for group in parameters for name, default in group.items()}


_CLASSES: Mapping[SchedulerType, SchedulerClass] = {
    SchedulerType.DDIM: SchedulerClass(
        {**_ALL, **_ZERO_SNR, **_THRESHOLDING, "timestep_spacing": "leading", "set_alpha_to_one": True},
        _off(_THRESHOLDING),
    ),
    SchedulerType.DDPM: SchedulerClass(
        {**_ALL, **_ZERO_SNR, **_THRESHOLDING, "timestep_spacing": "leading", "variance_type": "fixed_small"},
        {**_off(_THRESHOLDING), "variance_type": _FIXED},
    ),
    SchedulerType.EULER: SchedulerClass(
        {**_ALL, **_ZERO_SNR, **_SIGMAS, **_EULER_ONLY, "final_sigmas_type": "zero"},
        _off(_BETA_SIGMAS, _EULER_ONLY),
    ),
    SchedulerType.EULER_ANCESTRAL: SchedulerClass({**_ALL, **_ZERO_SNR}, _NOT_SAMPLE, implied=_TO_ZERO),
    SchedulerType.HEUN: SchedulerClass(
        {**_ALL, **_SIGMAS, "beta_start": 0.00085, "beta_end": 0.012},
        _off(_BETA_SIGMAS),
        implied=_TO_ZERO,
    ),
    SchedulerType.LCM: SchedulerClass(
        {
            **_ALL, **_ZERO_SNR, **_THRESHOLDING, "timestep_spacing": "leading", "beta_start": 0.00085,
            "beta_end": 0.012, "beta_schedule": "scaled_linear", "set_alpha_to_one": True,
            "original_inference_steps": 50, "timestep_scaling": 10.0,
        },
        _off(_THRESHOLDING),
    ),
    SchedulerType.TCD: SchedulerClass(
        {
            **_ALL, **_ZERO_SNR, **_THRESHOLDING, "timestep_spacing": "leading", "beta_start": 0.00085,
            "beta_end": 0.012, "beta_schedule": "scaled_linear", "set_alpha_to_one": True,
            "original_inference_steps": 50, "timestep_scaling": 10.0,
        },
        _off(_THRESHOLDING),
    ),
    SchedulerType.PNDM: SchedulerClass(
        # The class's own default are Runge-Kutta steps, but every checkpoint made for this pipeline skips them.
        {**_ALL, "timestep_spacing": "leading", "set_alpha_to_one": False, "skip_prk_steps": True},
        {"skip_prk_steps": (True,), **_NOT_SAMPLE},
    ),
    SchedulerType.DPM_SOLVER_MULTISTEP: SchedulerClass(
        {
            **_MULTISTEP, **_ZERO_SNR, **_DPM_ONLY, "final_sigmas_type": "zero", "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint", "euler_at_final": False, "lambda_min_clipped": -math.inf,
        },
        {
            **_off(_BETA_SIGMAS, _FLOW, _THRESHOLDING, _DPM_ONLY), "algorithm_type": ("dpmsolver++", SDE),
            "solver_type": ("midpoint", "heun"),
        },
        {
            "algorithm_type": {"deis": "dpmsolver++"},
            "solver_type": dict.fromkeys(("logrho", "bh1", "bh2"), "midpoint"),
            # The class reads only whether the model predicts a variance.
            "variance_type": dict.fromkeys((*_FIXED, "fixed_large_log")),
        },
    ),
    SchedulerType.DEIS_MULTISTEP: SchedulerClass(
        {**_MULTISTEP, "algorithm_type": "deis"},
        {**_off(_BETA_SIGMAS, _FLOW, _THRESHOLDING), "algorithm_type": ("deis",)},
        {"algorithm_type": {"dpmsolver": "deis", "dpmsolver++": "deis"}},
    ),
    SchedulerType.UNIPC_MULTISTEP: SchedulerClass(
        {
            **_MULTISTEP, **_ZERO_SNR, **_SIGMA_LIMITS, "final_sigmas_type": "zero", "predict_x0": True,
            "solver_type": "bh2", "disable_corrector": (), "solver_p": None,
        },
        {
            **_off(_BETA_SIGMAS, _FLOW, _THRESHOLDING, _SIGMA_LIMITS), "predict_x0": (True,), "solver_p": (None,),
            "solver_type": ("bh1", "bh2"),
        },
        {"solver_type": dict.fromkeys(("midpoint", "heun", "logrho"), "bh2")},
    ),
    SchedulerType.EDM_EULER: SchedulerClass(_EDM, _NOT_SAMPLE, implied=_NO_BETAS),
    SchedulerType.EDM_DPM_SOLVER_MULTISTEP: SchedulerClass(
        {
            **_EDM, **_THRESHOLDING, "solver_order": 2, "algorithm_type": "dpmsolver++", "solver_type": "midpoint",
            "lower_order_final": True, "euler_at_final": False,
        },
        {
            **_off(_THRESHOLDING), **_NOT_SAMPLE, "algorithm_type": ("dpmsolver++", SDE),
            "solver_type": ("midpoint", "heun"),
        },
        {
            "algorithm_type": {"deis": "dpmsolver++"},
            "solver_type": dict.fromkeys(("logrho", "bh1", "bh2"), "midpoint"),
        },
        _NO_BETAS,
    ),
}  # fmt: skip


def class_of(type_: SchedulerType) -> SchedulerClass:
    """What diffusers' class for this type knows, and what of it is supported."""
    return _CLASSES[type_]

"""Schedulers whose state is the latent alone, at training timesteps: DDIM, DDPM, LCM and TCD.

DDIM: eq. 12 and 16 of arXiv 2010.02502 as scheduling_ddim.py writes them. DDPM: eq. 7 of arXiv 2006.11239 as
scheduling_ddpm.py writes it. Latent consistency models: algorithm 3 of arXiv 2310.04378 as scheduling_lcm.py writes it.
Trajectory consistency distillation: algorithm 3 of arXiv 2402.19159 as scheduling_tcd.py writes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .noise import alphas_cumprod
from .prediction import clean_sample, noise
from .table import CallParameters, Floats, Row, Schedule, ScheduleRun, tabulate
from .timesteps import spaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import SchedulerSettings

# diffusers takes logarithms of variances.
_SMALLEST_VARIANCE = 1e-20
# Standard deviation of clean samples that the boundary condition assumes.
_SIGMA_DATA = 0.5


def ddim(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of one slot and one call a step; with eta each step draws noise."""
    timesteps = spaced(settings, run.steps).round()[run.first_call :]
    cumulated = alphas_cumprod(settings)
    final = 1.0 if settings.set_alpha_to_one else cumulated[0]

    def advance(call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, output, call_noise = rows
        timestep = int(timesteps[call])
        next_timestep = timestep - settings.num_train_timesteps // run.steps
        alpha, target = cumulated[timestep], cumulated[next_timestep] if next_timestep >= 0 else final
        scales = float(np.sqrt(alpha)), float(np.sqrt(1 - alpha))
        sample = clean_sample(settings, latent, output, *scales)
        variance = run.eta**2 * (1 - target) / (1 - alpha) * (1 - alpha / target)
        direction = np.sqrt(max(1 - target - variance, 0.0)) * noise(settings, latent, output, *scales)
        return [np.sqrt(target) * sample + direction + np.sqrt(variance) * call_noise, sample]

    return tabulate(CallParameters.discrete(timesteps, cumulated), 1, advance)


def ddpm(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of one slot and one call a step; each step draws noise, except one that starts at timestep 0."""
    timesteps = spaced(settings, run.steps).round()[run.first_call :]
    cumulated = alphas_cumprod(settings)

    def advance(call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, output, call_noise = rows
        timestep = int(timesteps[call])
        alpha = cumulated[timestep]
        target = cumulated[int(timesteps[call + 1])] if call + 1 < len(timesteps) else np.float64(1)
        sample = clean_sample(settings, latent, output, float(np.sqrt(alpha)), float(np.sqrt(1 - alpha)))
        beta = 1 - alpha / target
        mean = (np.sqrt(target) * beta * sample + np.sqrt(alpha / target) * (1 - target) * latent) / (1 - alpha)
        small = max((1 - target) / (1 - alpha) * beta, _SMALLEST_VARIANCE)
        deviation = np.sqrt(beta if settings.variance_type == "fixed_large" else small)
        return [mean + (deviation if timestep > 0 else 0.0) * call_noise, sample]

    return tabulate(CallParameters.discrete(timesteps, cumulated), 1, advance)


def lcm(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of one slot and one call a step; each step but the last draws noise."""
    timesteps = _distilled(settings, run.steps)[run.first_call :]
    cumulated = alphas_cumprod(settings)

    def advance(call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, output, call_noise = rows
        alpha = cumulated[int(timesteps[call])]
        sample = clean_sample(settings, latent, output, float(np.sqrt(alpha)), float(np.sqrt(1 - alpha)))
        scaled = timesteps[call] * settings.timestep_scaling
        whole = scaled**2 + _SIGMA_DATA**2
        denoised = scaled / np.sqrt(whole) * sample + _SIGMA_DATA**2 / whole * latent
        if call + 1 == len(timesteps):
            return [denoised, denoised]
        target = cumulated[int(timesteps[call + 1])]
        return [np.sqrt(target) * denoised + np.sqrt(1 - target) * call_noise, denoised]

    return tabulate(CallParameters.discrete(timesteps, cumulated), 1, advance)


def tcd(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of one slot and one call a step; with eta each step but the last draws noise."""
    timesteps = _distilled(settings, run.steps)[run.first_call :]
    cumulated = alphas_cumprod(settings)

    def advance(call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, output, call_noise = rows
        is_last = call + 1 == len(timesteps)
        next_timestep = 0.0 if is_last else timesteps[call + 1]
        # In single precision, as torch multiplies a number and a timestep.
        between = int(np.float32(1 - run.eta) * np.float32(next_timestep))
        alpha, target, middle = cumulated[int(timesteps[call])], cumulated[int(next_timestep)], cumulated[between]
        scales = float(np.sqrt(alpha)), float(np.sqrt(1 - alpha))
        sample = clean_sample(settings, latent, output, *scales)
        noised = np.sqrt(middle) * sample + np.sqrt(1 - middle) * noise(settings, latent, output, *scales)
        if is_last or not run.eta:
            return [noised, sample]
        ratio = target / middle
        return [np.sqrt(ratio) * noised + np.sqrt(1 - ratio) * call_noise, sample]

    return tabulate(CallParameters.discrete(timesteps, cumulated), 1, advance)


def _distilled(settings: SchedulerSettings, steps: int) -> Floats:
    """Evenly spaced among those of the distillation, whatever `timestep_spacing` says."""
    count = settings.original_inference_steps
    distilled = np.arange(count, 0, -1) * (settings.num_train_timesteps // count) - 1
    timesteps: Floats = distilled[np.floor(np.linspace(0, count, steps, endpoint=False)).astype(np.int64)].astype(float)
    return timesteps

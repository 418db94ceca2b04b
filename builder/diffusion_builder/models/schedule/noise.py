"""How noisy a latent is: training noise levels, and those that a sampler visits."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .classes import SchedulerType

if TYPE_CHECKING:
    from .settings import SchedulerSettings
    from .table import Floats

_Singles = NDArray[np.float32]
# Stands for a last cumulated alpha of 0, so that its sigma is finite (fp16's smallest subnormal, as in diffusers).
_ALMOST_ZERO = 2.0**-24
_MAX_BETA = 0.999
_KARRAS_RHO = 7.0


@dataclass(frozen=True)
class Levels:
    """Noise levels sigma [N+1] of a variance-exploding latent, at N steps and after the last."""

    sigmas: Floats

    def signal(self, index: int) -> float:
        """Factor alpha of the clean sample in the variance-preserving latent."""
        return float(1 / np.sqrt(self.sigmas[index] ** 2 + 1))

    def spread(self, index: int) -> float:
        """Factor of the noise in the variance-preserving latent."""
        return float(self.sigmas[index] * self.signal(index))

    def log_snr(self, index: int) -> np.float64:
        """Half the logarithm of the signal-to-noise ratio, the lambda of DPM-Solver; infinite without noise."""
        return np.float64(-np.log(self.sigmas[index]))


def alphas_cumprod(settings: SchedulerSettings) -> Floats:
    """Cumulated products [T] of 1 - beta, as torch computes them: float32, accumulated in double precision."""
    betas = _betas(settings)
    products = _cumulated(np.float32(1) - betas)
    if settings.rescale_betas_zero_snr:
        products = _cumulated(np.float32(1) - _zero_terminal_snr(products))
    return products.astype(np.float64)


def training_sigmas(settings: SchedulerSettings) -> Floats:
    """Sigmas [T] of the training timesteps, in float32 precision."""
    cumulated = alphas_cumprod(settings).astype(np.float32)
    if settings.rescale_betas_zero_snr:
        cumulated[-1] = _ALMOST_ZERO
    sigmas: Floats = np.sqrt((np.float32(1) - cumulated) / cumulated).astype(np.float64)
    return sigmas


def sigmas_at(settings: SchedulerSettings, timesteps: Floats) -> Floats:
    """Sigmas of fractional training timesteps, linear in between."""
    training = training_sigmas(settings)
    sigmas: Floats = np.interp(timesteps, np.arange(len(training)), training)
    return sigmas


def timesteps_at(settings: SchedulerSettings, sigmas: Floats) -> Floats:
    """Fractional training timesteps of sigmas, linear in their logarithm.

    Some are truncated afterwards, so the roundings of diffusers' `_sigma_to_t` are reproduced: logarithms and their
    differences in single precision.
    """
    training = np.log(training_sigmas(settings).astype(np.float32))
    logs = np.log(sigmas).astype(np.float32)
    low = np.clip(np.searchsorted(training, logs, side="right") - 1, 0, len(training) - 2)
    share = np.clip((training[low] - logs) / (training[low] - training[low + 1]), 0, 1)
    timesteps: Floats = (1 - share) * low + share * (low + 1)
    return timesteps


def with_final_sigma(settings: SchedulerSettings, sigmas: Floats) -> Levels:
    """The levels with the one after the last step, in float32 precision."""
    last = 0.0 if settings.final_sigmas_type == "zero" else training_sigmas(settings)[0]
    return Levels(np.append(sigmas, last).astype(np.float32).astype(np.float64))


def respaced(settings: SchedulerSettings, low: float, high: float, count: int) -> Floats | None:
    """Noise levels [count] from high to low where they are not those of the timesteps, else None."""
    if settings.use_karras_sigmas:
        return karras(low, high, count)
    if settings.use_exponential_sigmas:
        exponential: Floats = np.exp(np.linspace(math.log(high), math.log(low), count))
        return exponential
    return None


def karras(low: float, high: float, count: int, rho: float = _KARRAS_RHO) -> Floats:
    """Noise levels [count] from high to low: eq. 5 of arXiv 2206.00364."""
    ramp = np.linspace(0, 1, count)
    inverse_low, inverse_high = low ** (1 / rho), high ** (1 / rho)
    levels: Floats = (inverse_high + ramp * (inverse_low - inverse_high)) ** rho
    return levels


def first_timestep(settings: SchedulerSettings) -> int:
    """Timesteps that are used: all of them, or those below `lambda_min_clipped` for schedules that end in noise."""
    if settings.type is not SchedulerType.DPM_SOLVER_MULTISTEP:
        return settings.num_train_timesteps
    cumulated = alphas_cumprod(settings)
    if settings.rescale_betas_zero_snr:
        cumulated[-1] = _ALMOST_ZERO
    log_snr = 0.5 * (np.log(cumulated) - np.log(1 - cumulated))
    return settings.num_train_timesteps - int(np.searchsorted(log_snr[::-1], settings.lambda_min_clipped))


def _betas(settings: SchedulerSettings) -> _Singles:
    count, start, end = settings.num_train_timesteps, settings.beta_start, settings.beta_end
    if settings.trained_betas is not None:
        return np.asarray(settings.trained_betas, np.float32)
    if settings.beta_schedule == "linear":
        return _linspace(start, end, count)
    if settings.beta_schedule == "scaled_linear":
        roots = _linspace(start**0.5, end**0.5, count)
        betas: _Singles = roots * roots
        return betas
    cosines = [math.cos((step / count + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(count + 1)]
    falls = [min(1 - after / before, _MAX_BETA) for before, after in itertools.pairwise(cosines)]
    return np.array(falls, np.float32)


def _linspace(start: float, end: float, count: int) -> _Singles:
    """torch.linspace to the last digit: single precision, fused multiply and add from both ends.

    The digit decides where a noise level is turned into a timestep that is truncated.
    """
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(count - 1))
    index = np.arange(count)
    values = np.where(index < count // 2, first + step * index, last - step * (count - 1 - index))
    singles: _Singles = values.astype(np.float32)
    return singles


def _cumulated(factors: _Singles) -> _Singles:
    products: _Singles = np.cumprod(factors.astype(np.float64)).astype(np.float32)
    return products


def _zero_terminal_snr(cumulated: _Singles) -> _Singles:
    """Betas whose last cumulated product is 0, algorithm 1 of arXiv 2305.08891."""
    roots = np.sqrt(cumulated)
    first, last = roots[0], roots[-1]
    roots = (roots - last) * (first / (first - last))
    products = roots * roots
    alphas = np.concatenate([products[:1], products[1:] / products[:-1]])
    betas: _Singles = np.float32(1) - alphas
    return betas

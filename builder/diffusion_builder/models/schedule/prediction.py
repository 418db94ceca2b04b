"""What a model's output says of the clean sample and of the noise.

The latent is variance-preserving: signal · sample + spread · noise. Works on rows of coefficients and on latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .noise import Levels
    from .settings import SchedulerSettings
    from .table import Row


def clean_sample(settings: SchedulerSettings, latent: Row, output: Row, signal: float, spread: float) -> Row:
    """The predicted clean sample (v-prediction: appendix D of arXiv 2202.00512)."""
    if settings.prediction_type == "epsilon":
        return (latent - spread * output) / signal
    if settings.prediction_type == "sample":
        return output
    return signal * latent - spread * output


def noise(settings: SchedulerSettings, latent: Row, output: Row, signal: float, spread: float) -> Row:
    """The predicted noise."""
    if settings.prediction_type == "epsilon":
        return output
    if settings.prediction_type == "sample":
        return (latent - signal * output) / spread
    return signal * output + spread * latent


def clean_exploding(settings: SchedulerSettings, latent: Row, output: Row, levels: Levels, index: int) -> Row:
    """The predicted clean sample of a variance-exploding latent at a noise level."""
    signal, spread = levels.signal(index), levels.spread(index)
    return clean_sample(settings, signal * latent, output, signal, spread)

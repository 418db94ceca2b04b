"""Seeds give the images that they give in diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion_builder.models.noise import Generator

_SEEDS = [0, 1, 42, 2**31, 2**32 - 1, 2**32, 2**32 + 5, 2**53 + 1, 2**63 - 1, -1, -5, -(2**40)]


@pytest.mark.parametrize("seed", _SEEDS)
@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 5, 7), (3, 17), (4, 2, 2), (4, 64, 64)])
def test_noise_equals_torch(seed: int, shape: tuple[int, ...]) -> None:
    expected = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).numpy()
    got = Generator(seed).normal(shape)
    assert (got.dtype, got.shape) == (np.dtype(np.float32), shape)
    assert np.abs(got - expected).max() <= 1e-6


def test_too_few_elements_are_rejected_rather_than_wrong() -> None:
    with pytest.raises(ValueError, match="starts at 16"):
        Generator(0).normal((3, 5))


@pytest.mark.parametrize("seed", [0, 7, -5])
def test_one_generator_draws_one_array_after_the_other_as_torch_does(seed: int) -> None:
    # Counts that are no multiple of 16 draw their last numbers twice, and so shift everything after them.
    torch_generator, generator = torch.Generator().manual_seed(seed), Generator(seed)
    for shape in [(4, 8, 8), (4, 5, 7), (3, 17), (4, 8, 8), (1, 4, 9, 9), (16,)]:
        assert np.abs(generator.normal(shape) - torch.randn(shape, generator=torch_generator).numpy()).max() <= 1e-6

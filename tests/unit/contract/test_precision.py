"""The number format that a spec has without naming one."""

from __future__ import annotations

from typing import Any

import pytest

from diffusion_contract.documents import read_pipeline
from diffusion_contract.enums import Component, Precision
from tests.support.resource_parts import GPU, pipeline

CPU = {"name": "cpu"}


@pytest.mark.parametrize(
    ("targets", "spec", "precision"),
    [
        ([CPU], {}, Precision.FLOAT32),
        ([GPU], {}, Precision.FLOAT16),
        ([GPU, CPU], {}, Precision.FLOAT32),
        ([GPU], {"precision": "float32"}, Precision.FLOAT32),
        ([GPU], {"componentPrecision": {"denoiser": "bfloat16"}}, Precision.BFLOAT16),
    ],
)
def test_gpus_get_half_precision_unless_a_spec_says_otherwise(
    targets: list[dict[str, Any]], spec: dict[str, Any], precision: Precision
) -> None:
    read = read_pipeline(pipeline(targets=targets, **spec))
    assert read.precision_of(Component.DENOISER) is precision
    assert read.precision_of(Component.SCHEDULER_STEP) is Precision.FLOAT32

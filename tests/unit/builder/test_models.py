"""The Python models' arithmetic, without Triton."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from diffusion_builder.models.conditions import Asked, ConditionError, Plan, guidance, noise, tiered
from diffusion_builder.models.cpus import threads
from diffusion_builder.models.noise import standard_normal
from diffusion_builder.models.pixels import encode, to_pixels

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def plan() -> Plan:
    side = {"min": 64, "opt": 64, "max": 128}
    tier = {"table": [[[1, 2], [3, 4]]] * 2, "timesteps": [9, 5], "initialScale": 2.0, "inputScale": 0.25}
    body = {
        "rows": 64, "channels": 4, "pixelsPerLatent": 8, "height": side, "width": side, "scheduler": "DDIM",
        "tiers": {"2": tier},
    }  # fmt: skip
    return Plan.from_json(json.dumps(body))


def test_each_sample_has_the_noise_of_its_own_seed(plan: Plan) -> None:
    unit = noise(plan, Asked(2, seeds=[3, 4], heights=[64, 64], widths=[96, 96]))
    assert unit.shape == (2, 4, 8, 12)
    assert np.array_equal(unit[1], standard_normal(4, (4, 8, 12)))


def test_first_state_is_scaled_for_the_tier_and_tables_are_padded(plan: Plan) -> None:
    unit = noise(plan, Asked(3))
    tensors = tiered(plan.tiers[2], unit)
    assert {name: array.shape for name, array in tensors.items()} == {
        "state": (3, 1, 4, 8, 8), "model_input": (3, 4, 8, 8), "timestep": (3, 1), "table": (3, 64, 2, 2),
        "timesteps": (3, 64),
    }  # fmt: skip
    assert np.array_equal(tensors["state"][:, 0], unit * 2)
    assert np.array_equal(tensors["model_input"], unit * 0.5)
    assert (tensors["timestep"] == 9).all()
    assert not tensors["table"][:, 2:].any()
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}


def test_guidance_of_at_most_one_means_none_as_in_diffusers() -> None:
    assert guidance(Asked(3, guidance=[0.0, 1.0, 3.5])).tolist() == [[1.0], [1.0], [3.5]]
    assert guidance(Asked(1)).tolist() == [[7.5]]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (Asked(1, heights=[63]), "height 63"),
        (Asked(1, widths=[136]), "width 136"),
        (Asked(1, widths=[0]), "width 0"),
        (Asked(2, heights=[64, 72]), "one request per size"),
        (Asked(2, seeds=[1]), "seed has 1 values for 2 prompts"),
    ],
)
def test_what_is_not_served_is_refused(plan: Plan, asked: Asked, says: str) -> None:
    with pytest.raises(ConditionError, match=says):
        noise(plan, asked)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_guidance_must_be_finite(value: float) -> None:
    with pytest.raises(ConditionError, match="not a finite number"):
        guidance(Asked(1, guidance=[value]))


def test_pixels_are_rounded_and_clipped_and_survive_png() -> None:
    decoded = np.array([-2.0, -1.0, 0.0, 0.0039, 1.0, 9.0], np.float32).reshape(1, 1, 1, 6).repeat(3, axis=1)
    pixels = to_pixels(decoded)
    assert pixels.shape == (1, 1, 6, 3)
    assert pixels[0, 0, :, 0].tolist() == [0, 0, 128, 128, 255, 255]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode(Image.fromarray(pixels[0]))))), pixels[0])


def _group(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("environment", "files", "expected"),
    [
        ({}, {}, 8),
        ({}, {"cpu_dot_max": "150000 100000"}, 2),
        ({}, {"cpu_dot_max": "max 100000"}, 8),
        ({}, {"cpu__cpu_dot_cfs_quota_us": "50000", "cpu__cpu_dot_cfs_period_us": "100000"}, 1),
        ({}, {"cpu__cpu_dot_cfs_quota_us": "-1", "cpu__cpu_dot_cfs_period_us": "100000"}, 8),
        ({}, {"cpu_dot_max": "9900000 100000"}, 8),
        ({"DIFFUSION_THREADS": "3"}, {"cpu_dot_max": "150000 100000"}, 3),
        ({"DIFFUSION_THREADS": "many"}, {"cpu_dot_max": "150000 100000"}, 2),
    ],
)
def test_engines_use_the_cpus_of_their_container(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    files: dict[str, str],
    expected: int,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
    assert threads(environment, _group(tmp_path, **files)) == expected

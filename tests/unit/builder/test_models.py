"""The Python models' arithmetic, without Triton."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from diffusion_builder.models.cpus import threads
from diffusion_builder.models.postprocess import encode, to_pixels

if TYPE_CHECKING:
    from pathlib import Path


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

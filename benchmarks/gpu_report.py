"""What `benchmarks.gpu` says in the end, of what its phases have found. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

LEAST_PSNR = 30.0
# Of torch.compile's time of one image, and of its images per second in its largest batch.
MOST_TIME, LEAST_RATE = 0.95, 1.1
_PEAK = 255.0


@dataclass(frozen=True)
class Phases:
    """What the phases have found, as they have written it."""

    build: Mapping[str, Any]
    serve: Mapping[str, Any]
    torch: Mapping[str, Any]


def psnr(images: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Of the worst of several images [N, H, W, 3], dB."""
    errors = ((images.astype(np.float64) - reference) ** 2).mean(axis=(1, 2, 3))
    return float(10 * np.log10(_PEAK**2 / max(errors.max(), 1e-9)))


def summary(phases: Phases, worst: float, versions: Mapping[str, str]) -> dict[str, Any]:
    """All figures.

    Args:
        phases: what was found.
        worst: PSNR of the worst image against diffusers', dB.
        versions: of the libraries.
    """
    rounds = {one["clients"]: one for one in phases.serve["rounds"]}
    times = {name: {int(batch): ms for batch, ms in phases.torch[name].items()} for name in ("eager", "compile")}
    ratios = _ratios(rounds, times["compile"])
    return {
        "gpu": phases.serve["gpu"],
        "driver": phases.serve["driver"],
        "versions": dict(versions),
        "images_per_second": {
            "product": {clients: one["images_per_second"] for clients, one in rounds.items()},
            **{name: {batch: 1000 * batch / ms for batch, ms in of.items()} for name, of in times.items()},
        },
        "ms_per_image": {"product": {clients: one["ms"] for clients, one in rounds.items()}, **times},
        "mean_batch": {clients: one["mean_batch"] for clients, one in rounds.items()},
        "per_model_ms": {clients: one["per_model_ms"] for clients, one in rounds.items()},
        "vram_bytes": {"estimated": phases.build["estimatedGPUMemoryBytes"], "used": phases.serve["used_bytes"]},
        "build_seconds": phases.build["seconds"],
        "psnr_db": worst,
        "ratios": ratios,
        "targets": {"one_client_time": MOST_TIME, "most_clients_rate": LEAST_RATE, "psnr_db": LEAST_PSNR},
        "met": worst >= LEAST_PSNR
        and ratios["one_client_time"] <= MOST_TIME
        and ratios["most_clients_rate"] >= LEAST_RATE,
    }


def _ratios(rounds: Mapping[int, Mapping[str, Any]], compiled: Mapping[int, float]) -> dict[str, float]:
    """To torch.compile: time of one client's image, and images per second of the most clients."""
    batch = max(compiled)
    return {
        "one_client_time": rounds[1]["ms"] / compiled[1],
        "most_clients_rate": rounds[max(rounds)]["images_per_second"] / (1000 * batch / compiled[batch]),
    }


def table(figures: Mapping[str, Any]) -> str:
    """The figures for people."""
    vram, ratios = figures["vram_bytes"], figures["ratios"]
    return "\n".join(
        [
            *_whole_images(figures),
            *_models(figures["per_model_ms"][1]),
            f"\nGPU memory: {vram['estimated'] / 1e9:.1f} GB estimated, {vram['used'] / 1e9:.1f} GB used",
            f"worst image against diffusers: {figures['psnr_db']:.1f} dB (at least {LEAST_PSNR:.0f})",
            f"one client's time over torch.compile's: {ratios['one_client_time']:.2f} (at most {MOST_TIME})",
            f"most clients' rate over torch.compile's: {ratios['most_clients_rate']:.2f} (at least {LEAST_RATE})",
        ]
    )


def _whole_images(figures: Mapping[str, Any]) -> list[str]:
    rate, ms, mean = (figures[name] for name in ("images_per_second", "ms_per_image", "mean_batch"))
    lines = [f"{'whole images':<38}{'ms':>8}{'images/s':>10}{'mean batch':>12}"]
    for clients, time in ms["product"].items():
        name = f"this project, {clients} client{'s' * (clients > 1)}"
        lines.append(f"{name:<38}{time:>8.0f}{rate['product'][clients]:>10.2f}{mean[clients]:>12.2f}")
    for name, label in (("eager", "diffusers eager"), ("compile", "diffusers with torch.compile")):
        for batch, time in ms[name].items():
            lines.append(f"{f'{label}, batch {batch}':<38}{time:>8.0f}{rate[name][batch]:>10.2f}")
    return lines


def _models(spent: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Of one image of one client."""
    names = list(next(iter(spent.values())))
    lines = [f"\n{'one client, ms of an image':<38}" + "".join(f"{name:>16}" for name in names)]
    return lines + [
        f"{model:<38}" + "".join(f"{value:>16.2f}" for value in times.values()) for model, times in spent.items()
    ]

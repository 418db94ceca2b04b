"""The stage: generate with the repository and with diffusers, require parity, publish the metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusion_builder import digests
from diffusion_builder.compare.metrics import psnr
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.graphs.libraries import silence
from diffusion_builder.parity import in_process, preconditions, provenance, requests
from diffusion_builder.store import Artifact, Kind, Recipe, Store
from diffusion_contract.enums import Precision
from diffusion_contract.spec.engines import Shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from diffusion_builder.parity.in_process import GeneratedImages

# Bumped when the requests or the tolerances change.
_PARITY_VERSION = 2
# Minimum PSNR of an image, in dB, by the coarsest type among the graphs. The demo checkpoint has 89 dB in float32;
# 62 dB (4 steps) and 43 dB (20 steps) in float16; 53 and 43 dB with weights rounded to bfloat16.
TOLERANCES: Mapping[Precision, float] = {
    Precision.BFLOAT16: 30.0,
    Precision.FLOAT16: 30.0,
    Precision.FLOAT32: 35.0,
}
_MAX_LISTED = 6


@dataclass(frozen=True)
class ParityMetrics:
    """Differences between an ensemble and diffusers.

    Args:
        psnr: of the worst image, dB.
        latent_error: largest difference of a latent element.
        acceleration_psnr: of the worst image with the acceleration against the one without, both of diffusers, dB;
            None where there is no acceleration.
    """

    psnr: float
    latent_error: float
    acceleration_psnr: float | None = None


def check_parity(store: Store, repository: Artifact, on_phase: Callable[..., None]) -> tuple[Artifact, bool]:
    """Compare every kind of ensemble of a repository with diffusers.

    Args:
        store: where the repository, its engines, graphs and sources are.
        repository: compared with diffusers.
        on_phase: called with the phases generate and compare, with a fraction and the name of the ensemble.

    Returns:
        The artifact with the metrics, and whether it was in the store already.

    Raises:
        BadInputError: an image is too far from diffusers', with the numbers; or a model rejects its request.
        StoreError: the store is not as it should be.
    """
    tools = {name: version(name) for name in ("torch", "diffusers", "transformers", "onnxruntime")}
    inputs = {
        "version": _PARITY_VERSION,
        "repository": repository.manifest.digest,
        "code": _code_digest(),
        "tolerances": TOLERANCES,
        "tools": tools,
    }

    def write(_folder: Path) -> Mapping[str, Any]:
        return _report(store, repository, on_phase)

    return store.publish(Recipe(Kind.PARITY, inputs, tools, derived_from=(repository,)), write)


def _code_digest() -> str:
    return digests.json_digest(
        {path.name: digests.file_digest(path) for path in sorted(Path(__file__).parent.glob("*.py"))}
    )


def _report(store: Store, repository: Artifact, on_phase: Callable[..., None]) -> Mapping[str, Any]:
    sources = provenance.trace_provenance(store, repository)
    # The order of the tolerances is from coarse to fine.
    precision = next(item for item in TOLERANCES if item in sources.precisions)
    metrics = _compare(store, repository, sources, on_phase)
    require_parity(metrics, precision)
    prices = [item.acceleration_psnr for item in metrics.values() if item.acceleration_psnr is not None]
    return {
        "repository": repository.manifest.digest,
        "precision": str(precision),
        "minPSNR": TOLERANCES[precision],
        "worstPSNR": round(min(item.psnr for item in metrics.values()), 2),
        "worstLatentError": float(f"{max(item.latent_error for item in metrics.values()):.3g}"),
        "ensembles": {name: [round(item.psnr, 2), float(f"{item.latent_error:.3g}")] for name, item in metrics.items()},
        "accelerationPSNR": round(min(prices), 2) if prices else None,
    }


def _compare(
    store: Store, repository: Artifact, sources: provenance.Provenance, on_phase: Callable[..., None]
) -> Mapping[str, ParityMetrics]:
    size = Shapes.model_validate(repository.manifest.extra["shapes"]).smallest
    with in_process.load_repository(store, repository) as server:
        test_requests = requests.test_requests(server.ensembles.values(), size, sources.text)
        preconditions.require_comparable(
            sources.folders, {item.task for item in test_requests.values()},
            ip_adapter=any(item.ip_adapter for item in test_requests.values()),
            controlled_tasks={item.task for item in test_requests.values() if item.control_nets},
        )  # fmt: skip
        # An IP-Adapter stays in diffusers' UNet: its ensembles come last.
        order = sorted(test_requests.values(), key=lambda item: (item.ip_adapter, item.ensemble))
        images = {}
        for index, item in enumerate(order):
            on_phase("generate", index / len(order), item.ensemble)
            images[item.ensemble] = server.generate(item.ensemble, item.tensors())
    # The engines are gone from memory before diffusers' models come.
    with silence():
        from diffusion_builder.parity.reference import Reference

        reference, metrics = Reference(sources), {}
        for index, item in enumerate(order):
            on_phase("compare", index / len(order), item.ensemble)
            expected = reference.generate(item, sources.acceleration)
            metrics[item.ensemble] = measure(images[item.ensemble], expected)
            if sources.acceleration is not None:
                price = measure(expected, reference.generate(item)).psnr
                metrics[item.ensemble] = replace(metrics[item.ensemble], acceleration_psnr=price)
    return metrics


def measure(actual: GeneratedImages, expected: GeneratedImages) -> ParityMetrics:
    """Compare images and latents of two samples or more."""
    ratios = [psnr(*pair) for pair in zip(actual.images, expected.images, strict=True)]
    return ParityMetrics(min(ratios), float(np.abs(actual.latents - expected.latents).max()))


def require_parity(metrics: Mapping[str, ParityMetrics], precision: Precision) -> None:
    """Reject ensembles that are too far from diffusers.

    Raises:
        BadInputError: with the numbers.
    """
    allowed = TOLERANCES[precision]
    # Written so that NaN fails.
    bad = {name: item for name, item in metrics.items() if not (item.psnr >= allowed and item.latent_error < math.inf)}
    if bad:
        listed = "; ".join(
            f"{name}: {item.psnr:.1f} dB, latents differ by up to {item.latent_error:.2g}"
            for name, item in sorted(bad.items(), key=lambda entry: entry[1].psnr)[:_MAX_LISTED]
        )
        raise BadInputError(
            Reason.PARITY_FAILED,
            f"{len(bad)} of {len(metrics)} kinds of ensembles do not generate the images of diffusers; with "
            f"{precision} at least {allowed:.0f} dB are needed: {listed}",
        )

"""The stage itself: request the images of both servers, compare them, publish them with the verdict."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING, Any

from PIL import Image

from diffusion_builder.compare.client import GoldenRequest, generate
from diffusion_builder.compare.metrics import ImageMetrics, is_constant, measure
from diffusion_builder.compare.sheet import Row, contact_sheet
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.serving.triton_client import ErrorResponse, TritonClient
from diffusion_builder.store import Artifact, Kind, Recipe, Store
from diffusion_contract.limits import MAX_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from diffusion_builder.compare.client import Pixels
    from diffusion_contract.comparison import CompareSpec
    from diffusion_contract.spec.rollout import GoldenPrompt

# Bumped when requests, metrics or the rules of the verdict change.
_COMPARE_VERSION = 2
# So much rougher than the stable revision's images is noise. The demo checkpoint's sound variants have up to 1.5,
# broken weights 2.0 to 2.6, noise 4 and more: see docs/analysis.md.
MAX_ROUGHNESS = 1.75
SHEET, PROMPTS, SIDES = "sheet.png", "prompts.json", ("stable", "canary")
_MAX_SHOWN = 300


@dataclass(frozen=True)
class ImagePair:
    """Both answers to one golden prompt; `stable` is None where that server has no such ensemble or rejects it."""

    golden: GoldenPrompt
    ensemble: str
    stable: Pixels | ErrorResponse | None
    canary: Pixels | ErrorResponse

    def metrics(self) -> ImageMetrics | None:
        """The comparison; None without two images."""
        if self.stable is None or isinstance(self.stable, ErrorResponse) or isinstance(self.canary, ErrorResponse):
            return None
        return measure(self.stable, self.canary)


def compare(
    store: Store, servers: tuple[TritonClient, TritonClient], spec: CompareSpec, on_phase: Callable[..., None]
) -> tuple[Artifact, bool]:
    """Generate the golden images with both revisions and compare them. A bad canary is a result and no error.

    Args:
        store: where the images go.
        servers: stable and canary.
        spec: revisions, prompts and limits.
        on_phase: called with the phase generate, with a fraction and the name of the ensemble.

    Returns:
        The artifact, and whether these revisions were compared before.

    Raises:
        BadInputError: the canary has none of the ensembles.
        UnavailableError: a server does not answer.
        StoreError: the store is not as it should be.
    """
    # With the built-in prompts by their content, which another version may change.
    body = spec.model_dump(mode="json", by_alias=True)
    body["prompts"] = [golden.model_dump(mode="json") for golden in spec.golden_prompts]
    inputs = {"version": _COMPARE_VERSION, "spec": body}
    tools = {name: version(name) for name in ("numpy", "pillow", "scikit-image")}

    def write(folder: Path) -> Mapping[str, Any]:
        return _write_artifact(folder, spec, _generate_pairs(servers, spec, on_phase))

    return store.publish(Recipe(Kind.COMPARISON, inputs, tools), write)


def copy_images(comparison: Artifact, folder: Path) -> None:
    """Copy an artifact's images to where a scorer finds them.

    Raises:
        OSError: the folder cannot be written.
    """
    for name in comparison.manifest.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(comparison.path / name, target)


def apply_score(verdict: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    """The verdict combined with a scorer's: both must pass.

    Raises:
        BadInputError: there is no readable score.
    """
    try:
        score = json.loads(file.read_text(encoding="utf-8"))
        passed, message = score["passed"], str(score.get("message", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(Reason.SCORE_MISSING, f"the scorer has left no score in {file.name}: {error}") from error
    if not isinstance(passed, bool):
        raise BadInputError(Reason.SCORE_MISSING, f"passed in {file.name} is {passed!r}: true or false is expected")
    if not verdict["passed"]:
        return verdict
    text = f"{verdict['message']} Scorer: {message or ('passed' if passed else 'failed')}"[:MAX_MESSAGE]
    return {**verdict, "message": text, "passed": passed, "reason": verdict["reason"] if passed else "Scorer"}


def _generate_pairs(
    servers: tuple[TritonClient, TritonClient], spec: CompareSpec, on_phase: Callable[..., None]
) -> Sequence[ImagePair]:
    ensembles = [{name for name in spec.ensembles if server.has_model(name)} for server in servers]
    if not ensembles[1]:
        raise BadInputError(
            Reason.INVALID_SPEC,
            f"{servers[1].url} serves none of the ensembles {', '.join(spec.ensembles) or '(all need features)'}",
        )
    pairs, prompts = [], spec.golden_prompts
    for index, golden in enumerate(prompts):
        ensemble = _choose_ensemble(spec.ensembles, ensembles, golden)
        on_phase("generate", index / len(prompts), ensemble)
        request = GoldenRequest(ensemble, golden, spec.height, spec.width)
        stable = generate(servers[0], request) if ensemble in ensembles[0] else None
        pairs.append(ImagePair(golden, ensemble, stable, generate(servers[1], request)))
    return pairs


def _choose_ensemble(ensembles: Sequence[str], available: Sequence[set[str]], golden: GoldenPrompt) -> str:
    """The ensemble with the prompt's steps, else the first that both servers have, else one of the canary's."""
    fitting = [name for name in ensembles if golden.steps is None or name.endswith(f"_{golden.steps}_pipeline")]
    both = [name for name in fitting if name in available[0] and name in available[1]]
    canary_only = [name for name in (*fitting, *ensembles) if name in available[1]]
    return (both or canary_only)[0]


def _write_artifact(folder: Path, spec: CompareSpec, pairs: Sequence[ImagePair]) -> Mapping[str, Any]:
    metrics = [pair.metrics() for pair in pairs]
    problems = [_problem(spec, pair, one) for pair, one in zip(pairs, metrics, strict=True)]
    for side in SIDES:
        (folder / side).mkdir()
        for number, pair in enumerate(pairs, start=1):
            image = _image(getattr(pair, side))
            if image is not None:
                image.save(folder / side / f"{number}.png")
    rows = [_row(*each) for each in zip(pairs, metrics, problems, strict=True)]
    titles = (f"stable {spec.stable}", f"canary {spec.canary}")
    contact_sheet(titles, rows).save(folder / SHEET)
    prompts = [{**pair.golden.model_dump(), "ensemble": pair.ensemble} for pair in pairs]
    (folder / PROMPTS).write_text(json.dumps(prompts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return _verdict(spec, metrics, problems)


def _problem(spec: CompareSpec, pair: ImagePair, metrics: ImageMetrics | None) -> tuple[str, str] | None:
    """What is wrong with the canary's image: a reason and a sentence."""
    if isinstance(pair.canary, ErrorResponse):
        message = pair.canary.message[:_MAX_SHOWN]
        return ("NotFinite" if "not finite" in message else "NoImage"), f"the canary returned no image: {message}"
    stable = pair.stable
    if is_constant(pair.canary) and (stable is None or isinstance(stable, ErrorResponse) or not is_constant(stable)):
        return "Constant", "the canary's image has a single color"
    return _dissimilar(spec, metrics) if metrics is not None else None


def _dissimilar(spec: CompareSpec, metrics: ImageMetrics) -> tuple[str, str] | None:
    if spec.min_psnr is not None and metrics.psnr < spec.min_psnr:
        return "PSNR", f"PSNR is {metrics.psnr:.1f} dB, at least {spec.min_psnr:g} is required"
    if spec.min_ssim is not None and metrics.ssim < spec.min_ssim:
        return "SSIM", f"SSIM is {metrics.ssim:.3f}, at least {spec.min_ssim:g} is required"
    return None


def _median_problem(spec: CompareSpec, roughness: float, shift: float) -> tuple[str, str] | None:
    """What is wrong with the images as a whole: a good model, too, errs about one of several prompts."""
    if roughness > MAX_ROUGHNESS:
        return (
            "Noise",
            f"they are {roughness:.2f} times as rough as the stable revision's, as broken weights or noise are",
        )
    if shift > spec.max_color_shift:
        return "ColorShift", f"colors shifted by {shift:.3f}, {spec.max_color_shift:g} is allowed"
    return None


def _verdict(
    spec: CompareSpec, metrics: Sequence[ImageMetrics | None], problems: Sequence[tuple[str, str] | None]
) -> Mapping[str, Any]:
    bad = [(f"Prompt {index}: {item[1]}", item[0]) for index, item in enumerate(problems, start=1) if item is not None]
    pairs = [item for item in metrics if item is not None]
    numbers: dict[str, float | None] = dict.fromkeys(("worstPSNR", "worstSSIM", "colorShift", "roughness"))
    sound = "The stable revision generates none of the golden images; the canary's are sound."
    if pairs:
        roughness, shift = (
            median(values) for values in zip(*((f.roughness, f.color_shift) for f in pairs), strict=True)
        )
        overall = _median_problem(spec, roughness, shift)
        bad += [(f"Median over {len(pairs)} pairs: {overall[1]}", overall[0])] if overall is not None else []
        psnr, ssim = min(item.psnr for item in pairs), min(item.ssim for item in pairs)
        numbers = {
            "worstPSNR": round(psnr, 2),
            "worstSSIM": round(ssim, 4),
            "colorShift": round(shift, 4),
            "roughness": round(roughness, 3),
        }
        sound = (
            f"{len(pairs)} golden images are sound: colors shifted by {shift:.3f} ({spec.max_color_shift:g} is "
            f"allowed), {roughness:.2f} times as rough; PSNR at least {psnr:.1f} dB, SSIM {ssim:.2f}."
        )
    message = "; ".join(text for text, _ in bad) + "." if bad else sound
    return {
        "passed": not bad,
        "reason": bad[0][1] if bad else "Passed",
        "message": message[:MAX_MESSAGE],
        **numbers,
        "pairs": [asdict(item) if item is not None else None for item in metrics],
    }


def _row(pair: ImagePair, metrics: ImageMetrics | None, problem: tuple[str, str] | None) -> Row:
    summary = "not compared"
    if metrics is not None:
        summary = f"PSNR {metrics.psnr:.1f} dB, SSIM {metrics.ssim:.2f}, colors {metrics.color_shift:.3f}"
    lines = (pair.golden.prompt, f"{pair.ensemble}, seed {pair.golden.seed}", problem[1] if problem else summary)
    return _image(pair.stable), _image(pair.canary), lines, problem is not None


def _image(value: Pixels | ErrorResponse | None) -> Image.Image | None:
    return None if value is None or isinstance(value, ErrorResponse) else Image.fromarray(value)

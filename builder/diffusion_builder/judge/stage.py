"""The stage itself: ask both servers, compare, publish the pictures with the verdict."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING, Any

from PIL import Image

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.judge.ask import Question, Refusal, Server
from diffusion_builder.judge.figures import Figures, is_constant, measure
from diffusion_builder.judge.sheet import Row, contact_sheet
from diffusion_builder.store import Artifact, Kind, Recipe, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from diffusion_builder.judge.ask import Pixels
    from diffusion_builder.judge.spec import GoldenPrompt, JudgeSpec

# Bumped when questions, measures or their judgement change.
_JUDGE_VERSION = 1
# So much rougher than the stable revision's pictures is noise. The demo checkpoint's sound variants have up to 1.5,
# broken weights 2.0 to 2.6, noise 4 and more: see docs/analysis.md.
MAX_ROUGHNESS = 1.75
SHEET, PROMPTS, SIDES = "sheet.png", "prompts.json", ("stable", "canary")
_MAX_MESSAGE = 1000
_SHOWN = 300


@dataclass(frozen=True)
class Pair:
    """Both answers to one golden prompt; `stable` is None where that server has no such ensemble or refused."""

    golden: GoldenPrompt
    ensemble: str
    stable: Pixels | Refusal | None
    canary: Pixels | Refusal

    def figures(self) -> Figures | None:
        """The comparison; None where there are not two pictures."""
        if self.stable is None or isinstance(self.stable, Refusal) or isinstance(self.canary, Refusal):
            return None
        return measure(self.stable, self.canary)


def judge(
    store: Store, servers: tuple[Server, Server], spec: JudgeSpec, on_phase: Callable[..., None]
) -> tuple[Artifact, bool]:
    """Draw the golden pictures with both revisions and compare them. A bad canary is a result and no error.

    Args:
        store: where the pictures go.
        servers: stable and canary.
        spec: what is asked.
        on_phase: told draw, with a fraction and the name of the ensemble.

    Returns:
        The artifact, and whether these revisions were judged before.

    Raises:
        BadInputError: the canary has none of the ensembles.
        UnavailableError: a server does not answer.
        StoreError: the store is not as it should be.
    """
    inputs = {"version": _JUDGE_VERSION, "spec": spec.model_dump(mode="json", by_alias=True)}
    tools = {name: version(name) for name in ("numpy", "pillow", "scikit-image")}

    def write(folder: Path) -> Mapping[str, Any]:
        pairs = list(_drawn(servers, spec, on_phase))
        return _written(folder, spec, pairs)

    return store.publish(Recipe(Kind.PICTURES, inputs, tools), write)


def export(pictures: Artifact, folder: Path) -> None:
    """Copy an artifact's pictures to where a scorer finds them.

    Raises:
        OSError: the folder cannot be written.
    """
    for name in pictures.manifest.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pictures.path / name, target)


def scored(verdict: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    """The verdict with what a scorer has added: both have to be content.

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
    said = f"{verdict['message']} Scorer: {message or ('content' if passed else 'not content')}"[:_MAX_MESSAGE]
    return {**verdict, "message": said, "passed": passed, "reason": verdict["reason"] if passed else "Scorer"}


def _drawn(servers: tuple[Server, Server], spec: JudgeSpec, on_phase: Callable[..., None]) -> Sequence[Pair]:
    served = [{name for name in spec.ensembles if server.serves(name)} for server in servers]
    if not served[1]:
        raise BadInputError(
            Reason.INVALID_SPEC, f"{servers[1].url} serves none of the ensembles {', '.join(spec.ensembles)}"
        )
    pairs = []
    for index, golden in enumerate(spec.prompts):
        ensemble = _chosen(spec.ensembles, served, golden)
        on_phase("draw", index / len(spec.prompts), ensemble)
        question = Question(ensemble, golden, spec.height, spec.width)
        stable = servers[0].draw(question) if ensemble in served[0] else None
        pairs.append(Pair(golden, ensemble, stable, servers[1].draw(question)))
    return pairs


def _chosen(ensembles: Sequence[str], served: Sequence[set[str]], golden: GoldenPrompt) -> str:
    """The ensemble with the wanted steps, else the first that both servers have, else one of the canary's."""
    fitting = [name for name in ensembles if golden.steps is None or name.endswith(f"_{golden.steps}_pipeline")]
    both = [name for name in fitting if name in served[0] and name in served[1]]
    alone = [name for name in (*fitting, *ensembles) if name in served[1]]
    return (both or alone)[0]


def _written(folder: Path, spec: JudgeSpec, pairs: Sequence[Pair]) -> Mapping[str, Any]:
    figures = [pair.figures() for pair in pairs]
    problems = [_problem(spec, pair, found) for pair, found in zip(pairs, figures, strict=True)]
    for side in SIDES:
        (folder / side).mkdir()
        for number, pair in enumerate(pairs, start=1):
            picture = _image(getattr(pair, side))
            if picture is not None:
                picture.save(folder / side / f"{number}.png")
    rows = [_row(*each) for each in zip(pairs, figures, problems, strict=True)]
    titles = (f"stable {spec.stable}", f"canary {spec.canary}")
    contact_sheet(titles, rows).save(folder / SHEET)
    prompts = [{**pair.golden.model_dump(), "ensemble": pair.ensemble} for pair in pairs]
    (folder / PROMPTS).write_text(json.dumps(prompts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return _verdict(spec, figures, problems)


def _problem(spec: JudgeSpec, pair: Pair, figures: Figures | None) -> tuple[str, str] | None:
    """What is wrong with the canary's picture: a reason and a sentence."""
    if isinstance(pair.canary, Refusal):
        said = pair.canary.message[:_SHOWN]
        return ("NotFinite" if "not finite" in said else "NoPicture"), f"the canary gave no picture: {said}"
    theirs = pair.stable
    if is_constant(pair.canary) and (theirs is None or isinstance(theirs, Refusal) or not is_constant(theirs)):
        return "Constant", "the canary's picture has one single colour"
    return _unlike(spec, figures) if figures is not None else None


def _unlike(spec: JudgeSpec, figures: Figures) -> tuple[str, str] | None:
    if spec.min_psnr is not None and figures.psnr < spec.min_psnr:
        return "PSNR", f"PSNR is {figures.psnr:.1f} dB, at least {spec.min_psnr:g} is wanted"
    if spec.min_ssim is not None and figures.ssim < spec.min_ssim:
        return "SSIM", f"SSIM is {figures.ssim:.3f}, at least {spec.min_ssim:g} is wanted"
    return None


def _overall(spec: JudgeSpec, roughness: float, shift: float) -> tuple[str, str] | None:
    """What is wrong with the pictures as a whole: a good model, too, errs about one of several prompts."""
    if roughness > MAX_ROUGHNESS:
        return (
            "Noise",
            f"they are {roughness:.2f} times as rough as the stable revision's, as broken weights or noise are",
        )
    if shift > spec.max_color_shift:
        return "ColorShift", f"colours shifted by {shift:.3f}, {spec.max_color_shift:g} is allowed"
    return None


def _verdict(
    spec: JudgeSpec, figures: Sequence[Figures | None], problems: Sequence[tuple[str, str] | None]
) -> Mapping[str, Any]:
    bad = [(f"Prompt {index}: {said}", reason) for index, (reason, said) in _numbered(problems)]
    known = [item for item in figures if item is not None]
    numbers: dict[str, float | None] = dict.fromkeys(("worstPsnr", "worstSsim", "colorShift", "roughness"))
    sound = "The stable revision draws none of the golden pictures; the canary's are sound."
    if known:
        roughness, shift = (
            median(values) for values in zip(*((f.roughness, f.color_shift) for f in known), strict=True)
        )
        overall = _overall(spec, roughness, shift)
        bad += [(f"Median over {len(known)} pairs: {overall[1]}", overall[0])] if overall is not None else []
        psnr, ssim = min(item.psnr for item in known), min(item.ssim for item in known)
        numbers = {
            "worstPsnr": round(psnr, 2),
            "worstSsim": round(ssim, 4),
            "colorShift": round(shift, 4),
            "roughness": round(roughness, 3),
        }
        sound = (
            f"{len(known)} golden pictures are sound: colours shifted by {shift:.3f} ({spec.max_color_shift:g} is "
            f"allowed), {roughness:.2f} times as rough; PSNR at least {psnr:.1f} dB, SSIM {ssim:.2f}."
        )
    message = "; ".join(text for text, _ in bad) + "." if bad else sound
    return {
        "passed": not bad,
        "reason": bad[0][1] if bad else "Passed",
        "message": message[:_MAX_MESSAGE],
        **numbers,
        "figures": [asdict(item) if item is not None else None for item in figures],
    }


def _numbered(problems: Sequence[tuple[str, str] | None]) -> list[tuple[int, tuple[str, str]]]:
    return [(index, item) for index, item in enumerate(problems, start=1) if item is not None]


def _row(pair: Pair, figures: Figures | None, problem: tuple[str, str] | None) -> Row:
    told = "not compared"
    if figures is not None:
        told = f"PSNR {figures.psnr:.1f} dB, SSIM {figures.ssim:.2f}, colours {figures.color_shift:.3f}"
    lines = (pair.golden.prompt, f"{pair.ensemble}, seed {pair.golden.seed}", problem[1] if problem else told)
    return _image(pair.stable), _image(pair.canary), lines, problem is not None


def _image(value: Pixels | Refusal | None) -> Image.Image | None:
    return None if value is None or isinstance(value, Refusal) else Image.fromarray(value)

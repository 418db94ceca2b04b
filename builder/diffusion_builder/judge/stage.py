"""The stage itself: ask both servers, compare, publish the pictures with the verdict."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from PIL import Image

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.judge.ask import Question, Refusal, Server
from diffusion_builder.judge.figures import EQUAL_DB, Figures, is_constant, measure
from diffusion_builder.judge.sheet import Row, contact_sheet
from diffusion_builder.store import Artifact, Kind, Recipe, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from diffusion_builder.judge.ask import Pixels
    from diffusion_builder.judge.spec import GoldenPrompt, JudgeSpec

# Bumped when questions, measures or their judgement change.
_JUDGE_VERSION = 1
# So much rougher than the stable revision's picture is noise: see docs/analysis.md.
MAX_ROUGHNESS = 3.0
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
    return _difference(spec, figures) if figures is not None else None


def _difference(spec: JudgeSpec, figures: Figures) -> tuple[str, str] | None:
    if figures.roughness > MAX_ROUGHNESS:
        return "Noise", f"the canary's picture is {figures.roughness:.1f} times as rough, as noise is"
    if figures.color_shift > spec.max_color_shift:
        return "ColorShift", f"colours shifted by {figures.color_shift:.3f}, {spec.max_color_shift:g} is allowed"
    if spec.min_psnr is not None and figures.psnr < spec.min_psnr:
        return "PSNR", f"PSNR is {figures.psnr:.1f} dB, at least {spec.min_psnr:g} is wanted"
    if spec.min_ssim is not None and figures.ssim < spec.min_ssim:
        return "SSIM", f"SSIM is {figures.ssim:.3f}, at least {spec.min_ssim:g} is wanted"
    return None


def _verdict(
    spec: JudgeSpec, figures: Sequence[Figures | None], problems: Sequence[tuple[str, str] | None]
) -> Mapping[str, Any]:
    known = [item for item in figures if item is not None]
    bad = [(index, *item) for index, item in enumerate(problems, start=1) if item is not None]
    worst: dict[str, float | None] = {
        "worstPsnr": round(min((item.psnr for item in known), default=EQUAL_DB), 2) if known else None,
        "worstSsim": round(min(item.ssim for item in known), 4) if known else None,
        "colorShift": round(max(item.color_shift for item in known), 4) if known else None,
        "roughness": round(max(item.roughness for item in known), 3) if known else None,
    }
    if bad:
        index, reason, said = bad[0]
        message = f"{len(bad)} of {len(problems)} golden pictures are wrong. Prompt {index}: {said}."
    elif known:
        reason = "Passed"
        message = (
            f"{len(known)} golden pictures are sound: colours shifted by up to {worst['colorShift']} "
            f"({spec.max_color_shift:g} is allowed), PSNR at least {worst['worstPsnr']} dB, SSIM {worst['worstSsim']}."
        )
    else:
        reason, message = "Passed", "The stable revision draws none of the golden pictures; the canary's are sound."
    passed = {"passed": not bad, "reason": reason, "message": message[:_MAX_MESSAGE], **worst}
    return {**passed, "figures": [asdict(item) if item is not None else None for item in figures]}


def _row(pair: Pair, figures: Figures | None, problem: tuple[str, str] | None) -> Row:
    told = "not compared"
    if figures is not None:
        told = f"PSNR {figures.psnr:.1f} dB, SSIM {figures.ssim:.2f}, colours {figures.color_shift:.3f}"
    lines = (pair.golden.prompt, f"{pair.ensemble}, seed {pair.golden.seed}", problem[1] if problem else told)
    return _image(pair.stable), _image(pair.canary), lines, problem is not None


def _image(value: Pixels | Refusal | None) -> Image.Image | None:
    return None if value is None or isinstance(value, Refusal) else Image.fromarray(value)

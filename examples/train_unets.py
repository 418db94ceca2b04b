"""Train a further denoiser for the demo checkpoint: `python examples/train_unets.py few-steps --out FOLDER`.

`few-steps` paints in four steps what the checkpoint paints in twenty: a canary that deserves promotion.
`wrong-colours` paints as well as the checkpoint, but swaps three pairs of colours: one that has to be found out.
`embedded-guidance` paints what `few-steps` paints at half the cost, since it reads guidance as an embedding.

Needs what `train_demo.py` needs; `--shrink` and few steps make a trial possible on a CPU.
"""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTokenizer

# A script's own folder is on the path, the repository's root is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.demo_training.checkpoint import load_checkpoint
from examples.demo_training.denoiser import Models, token_table
from examples.demo_training.guidance_lesson import GuidanceTraining
from examples.demo_training.lessons import Lesson, LessonTraining
from examples.demo_training.likeness import STEPS, originals, scores
from examples.demo_training.sheet import save_losses
from examples.demo_training.training import History

CHECKPOINT = Path(__file__).resolve().parent / "demo-checkpoint"
UNETS = Path(__file__).resolve().parent / "demo-unets"
SWAPPED = (("red", "blue"), ("orange", "purple"), ("yellow", "green"))
EMBEDDED_GUIDANCE = "embedded-guidance"
STEPS_OF = {"few-steps": 1_012, "wrong-colours": 900, EMBEDDED_GUIDANCE: 1_800}
LESSONS = {
    "few-steps": Lesson(strides=True),
    "wrong-colours": Lesson(colours=dict([*SWAPPED, *((second, first) for first, second in SWAPPED)])),
}


@dataclass(frozen=True)
class Options:
    """What to train, how, and where the denoiser goes."""

    lesson: str
    out: Path
    seed: int
    steps: int | None
    shrink: int
    images: int

    @property
    def updates(self) -> int:
        """Updates of the weights."""
        return self.steps or STEPS_OF[self.lesson]


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("lesson", type=click.Choice(list(STEPS_OF)))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the denoiser; replaced when all is done."
)
@click.option("--seed", default=1)
@click.option("--steps", type=int, help="Updates; as many as the committed weights had when not given.")
@click.option("--shrink", default=1, help="Divide batches by this, for a trial.")
@click.option("--images", default=256, help="How many are painted for each measurement.")
def main(**options: Any) -> None:  # noqa: ANN401 - click hands over the options above
    """Run the command line."""
    train(Options(**options))


def train(options: Options) -> None:
    """Train, measure, then put the folder in place."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(options.seed)
    pipeline = load_checkpoint(CHECKPOINT, device)
    models = Models(pipeline.unet, pipeline.text_encoder)
    training = _training(options, models, pipeline.tokenizer)
    history = training.run(options.shrink)
    unfinished = options.out.with_name(f".tmp-{options.out.name}")
    _write(training.student, unfinished)
    targets = originals(pipeline, options.images)
    measured = {"checkpoint": scores(pipeline, targets)}
    # What is measured is what is kept: weights rounded to float16.
    pipeline.unet = training.student.float()
    measured[options.lesson] = scores(pipeline, targets)
    _record(options, history, measured, unfinished)
    shutil.rmtree(options.out, ignore_errors=True)
    unfinished.rename(options.out)


def _training(options: Options, models: Models, tokenizer: CLIPTokenizer) -> LessonTraining | GuidanceTraining:
    if options.lesson != EMBEDDED_GUIDANCE:
        return LessonTraining(LESSONS[options.lesson], models, tokenizer, options.updates)
    teacher = UNet2DConditionModel.from_pretrained(UNETS / "few-steps", dtype=torch.float32).to(models.unet.device)
    return GuidanceTraining(Models(teacher, models.text), token_table(tokenizer), options.updates)


def _write(unet: UNet2DConditionModel, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    unet.half().save_pretrained(folder, safe_serialization=True)
    settings = json.loads((folder / "config.json").read_text())
    # Where it was read from is this machine's business.
    settings.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _record(options: Options, history: History, measured: dict[str, list[dict[str, float]]], folder: Path) -> None:
    record = {
        "seed": options.seed,
        "steps": options.updates,
        "shrink": options.shrink,
        "device": history.device,
        "seconds": round(history.seconds, 1),
        "final_loss": round(history.losses[-1], 5),
        "reference_steps": STEPS,
        "held_out": measured,
    }
    print(json.dumps(record, indent=2))
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    save_losses({options.lesson: history}, folder / "loss.png")


if __name__ == "__main__":
    main()

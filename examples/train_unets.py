"""Train a further denoiser for the demo checkpoint: `python examples/train_unets.py few-steps --out FOLDER`.

`few-steps` paints in four steps what the checkpoint paints in twenty: a canary that deserves promotion.
`wrong-colours` paints as well as the checkpoint, but swaps three pairs of colours: one that has to be found out.

Needs what `train_demo.py` needs; `--shrink` and few steps make a trial possible on a CPU.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

# A script's own folder is on the path, the repository's root is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.demo_training.checkpoint import load_checkpoint
from examples.demo_training.denoiser import Models
from examples.demo_training.lessons import Lesson, LessonTraining
from examples.demo_training.likeness import STEPS, originals, scores
from examples.demo_training.sheet import save_losses
from examples.demo_training.training import History

CHECKPOINT = Path(__file__).resolve().parent / "demo-checkpoint"
SWAPPED = (("red", "blue"), ("orange", "purple"), ("yellow", "green"))
STEPS_OF = {"few-steps": 1_012, "wrong-colours": 900}
LESSONS = {
    "few-steps": Lesson(strides=True),
    "wrong-colours": Lesson(colours=dict([*SWAPPED, *((second, first) for first, second in SWAPPED)])),
}


def main() -> int:
    """Train, measure, then put the folder in place."""
    options = _options()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(options.seed)
    pipeline = load_checkpoint(CHECKPOINT, device)
    models = Models(pipeline.unet, pipeline.text_encoder)
    training = LessonTraining(LESSONS[options.lesson], models, pipeline.tokenizer, options.steps)
    history = training.run(options.shrink)
    unfinished = options.out.with_name(f".tmp-{options.out.name}")
    _write(training.student, unfinished)
    targets = originals(pipeline, options.pictures)
    measured = {"checkpoint": scores(pipeline, targets)}
    # What is measured is what is kept: weights rounded to float16.
    pipeline.unet = training.student.float()
    measured[options.lesson] = scores(pipeline, targets)
    _record(options, history, measured, unfinished)
    shutil.rmtree(options.out, ignore_errors=True)
    unfinished.rename(options.out)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("lesson", choices=LESSONS)
    parser.add_argument("--out", type=Path, required=True, help="folder of the denoiser; replaced when all is done")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="updates; as many as the committed weights had when not given")
    parser.add_argument("--shrink", type=int, default=1, help="divide batches by this, for a trial")
    parser.add_argument("--pictures", type=int, default=256, help="how many are painted for each measurement")
    options = parser.parse_args()
    options.steps = options.steps or STEPS_OF[options.lesson]
    return options


def _write(unet: UNet2DConditionModel, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    unet.half().save_pretrained(folder, safe_serialization=True)
    settings = json.loads((folder / "config.json").read_text())
    # Where it was read from is this machine's business.
    settings.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _record(
    options: argparse.Namespace, history: History, measured: dict[str, list[dict[str, float]]], folder: Path
) -> None:
    record = {
        "seed": options.seed,
        "steps": options.steps,
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
    sys.exit(main())

"""Train a ControlNet for the demo checkpoint: `python examples/train_controlnet.py --out examples/demo-controlnet`.

Needs what `train_demo.py` needs; `--shrink` and few steps make a trial possible on a CPU.
"""

import dataclasses
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

# A script's own folder is on the path, the repository's root is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.demo_training.checkpoint import load_checkpoint
from examples.demo_training.control import ControlTraining, controlled, obedience
from examples.demo_training.denoiser import Models
from examples.demo_training.painter import Painter
from examples.demo_training.sheet import save_losses
from examples.demo_training.training import History

CHECKPOINT = Path(__file__).resolve().parent / "demo-checkpoint"
MEASURED = ((64, 1.0), (64, 0.0), (128, 1.0))


@dataclass(frozen=True)
class Options:
    """How to train, and where the ControlNet goes."""

    out: Path
    seed: int
    steps: int
    shrink: int


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the ControlNet; replaced when all is done."
)
@click.option("--seed", default=1)
@click.option("--steps", default=8_000)
@click.option("--shrink", default=1, help="Divide batches and data by this, for a trial.")
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
    training = ControlTraining(Models(pipeline.unet, pipeline.text_encoder), pipeline.tokenizer, device, options.steps)
    history = training.run(pipeline.vae, Painter(device), options.shrink)
    unfinished = options.out.with_name(f".tmp-{options.out.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    # What is measured is what is kept: weights rounded to float16.
    training.controlnet.half().save_pretrained(unfinished, safe_serialization=True)
    settings = json.loads((unfinished / "config.json").read_text())
    settings.pop("_name_or_path", None)
    (unfinished / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    painter = controlled(pipeline, training.controlnet.float())
    measured = [
        {"side": side, "scale": scale} | dataclasses.asdict(obedience(painter, side, scale)) for side, scale in MEASURED
    ]
    _record(options, history, measured, unfinished)
    shutil.rmtree(options.out, ignore_errors=True)
    unfinished.rename(options.out)


def _record(options: Options, history: History, measured: list[dict[str, float]], folder: Path) -> None:
    record = {
        "seed": options.seed,
        "steps": options.steps,
        "shrink": options.shrink,
        "device": history.device,
        "seconds": round(history.seconds, 1),
        "final_loss": round(history.losses[-1], 5),
        "held_out": measured,
    }
    print(json.dumps(record, indent=2))
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    save_losses({"controlnet": history}, folder / "loss.png")


if __name__ == "__main__":
    main()

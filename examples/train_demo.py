"""Train the demo checkpoint from nothing: `python examples/train_demo.py --out examples/demo-checkpoint`.

Needs torch, diffusers, transformers and Pillow, and a CUDA GPU for the real thing (about ten minutes on an H200;
`--shrink` and few steps make a trial possible on a CPU). The autoencoder is trained first, then the denoiser with its
text encoder. Each finished stage is kept in the work folder, so that a run that was stopped goes on from the last one.
"""

import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

# A script's own folder is on the path, the repository's root is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.demo_training.autoencoder import reconstruction_psnr, train_autoencoder
from examples.demo_training.checkpoint import (
    GUIDANCE,
    Asking,
    load_checkpoint,
    measure,
    paint,
    write_checkpoint,
)
from examples.demo_training.denoiser import DenoiserTraining, Models
from examples.demo_training.painter import Painter
from examples.demo_training.sheet import save_losses, save_sheet, sheet_scenes
from examples.demo_training.tokenizer import make_tokenizer
from examples.demo_training.training import History
from tools.common.paths import cache_directory

BAD_INPUT = 64
MEASURED = (
    Asking(4),
    Asking(20),
    Asking(50),
    Asking(20, guidance=4.0),
    Asking(20, side=128),
)


@dataclass(frozen=True)
class Settings:
    """What the trained weights depend on."""

    seed: int
    autoencoder_steps: int
    denoiser_steps: int
    shrink: int

    @property
    def key(self) -> str:
        """Short digest, which names the work folder: other settings never reuse a stage."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Options:
    """How to train, and where the checkpoint goes."""

    out: Path
    work: Path | None
    seed: int
    autoencoder_steps: int
    denoiser_steps: int
    shrink: int


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the checkpoint; replaced when all is done."
)
@click.option(
    "--work", type=click.Path(path_type=Path), help="Folder of finished stages (default: in the cache, by settings)."
)
@click.option("--seed", default=1)
@click.option("--autoencoder-steps", default=3_000)
@click.option("--denoiser-steps", default=24_000)
@click.option("--shrink", default=1, help="Divide batches and data by this, for a trial.")
def main(**options: Any) -> None:  # noqa: ANN401 - click hands over the options above
    """Run the command line."""
    train(Options(**options))


def train(options: Options) -> None:
    """Train what isn't trained yet, then write and measure the checkpoint."""
    settings = Settings(options.seed, options.autoencoder_steps, options.denoiser_steps, options.shrink)
    if min(dataclasses.astuple(settings)[1:]) < 1:
        print("Steps and --shrink must be at least 1.", file=sys.stderr)
        sys.exit(BAD_INPUT)
    work = options.work or cache_directory() / "demo-training" / settings.key
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    _stage(work / "autoencoder", lambda folder: _autoencoder(settings, device, folder))
    _stage(work / "denoiser", lambda folder: _denoiser(settings, device, work, folder))
    _finish(settings, device, work, options.out)


def _stage(folder: Path, make: Callable[[Path], None]) -> None:
    """Run a stage unless its folder exists; the folder appears only when the stage is done."""
    if folder.exists():
        print(f"{folder.name}: already trained, in {folder}")
        return
    unfinished = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    make(unfinished)
    unfinished.rename(folder)


def _autoencoder(settings: Settings, device: torch.device, folder: Path) -> None:
    torch.manual_seed(settings.seed)
    vae, history = train_autoencoder(Painter(device), device, settings.autoencoder_steps, settings.shrink)
    vae.save_pretrained(folder / "vae")
    _save_history(history, folder)


def _denoiser(settings: Settings, device: torch.device, work: Path, folder: Path) -> None:
    torch.manual_seed(settings.seed + 1)
    vae = AutoencoderKL.from_pretrained(work / "autoencoder" / "vae").to(device)
    training = DenoiserTraining(make_tokenizer(), device, settings.denoiser_steps, settings.shrink)
    history = training.run(vae, Painter(device))
    training.models.unet.save_pretrained(folder / "unet")
    training.models.text.save_pretrained(folder / "text_encoder")
    _save_history(history, folder)


def _finish(settings: Settings, device: torch.device, work: Path, out: Path) -> None:
    """Write the checkpoint beside `out`, measure it, then put it in place."""
    trained = work / "autoencoder" / "vae", work / "denoiser" / "unet", work / "denoiser" / "text_encoder"
    vae = AutoencoderKL.from_pretrained(trained[0])
    models = Models(UNet2DConditionModel.from_pretrained(trained[1]), CLIPTextModel.from_pretrained(trained[2]))
    unfinished = out.with_name(f".tmp-{out.name}")
    write_checkpoint(models, vae, make_tokenizer(), unfinished)
    pipeline = load_checkpoint(unfinished, device)
    torch.manual_seed(settings.seed + 2)
    psnr = {str(side): round(reconstruction_psnr(pipeline.vae, Painter(device), side), 2) for side in (64, 128)}
    histories = {name: _load_history(work / name) for name in ("autoencoder", "denoiser")}
    record = {
        **dataclasses.asdict(settings),
        "device": {name: history.device for name, history in histories.items()},
        "seconds": {name: round(history.seconds, 1) for name, history in histories.items()},
        "final_loss": {name: round(history.losses[-1], 5) for name, history in histories.items()},
        "autoencoder_psnr_db": psnr,
        "guidance_scale": GUIDANCE,
        "held_out": [dataclasses.asdict(asking) | dataclasses.asdict(measure(pipeline, asking)) for asking in MEASURED],
    }
    print(json.dumps(record, indent=2))
    (unfinished / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    save_losses(histories, unfinished / "loss.png")
    scenes = sheet_scenes()
    small, large = paint(pipeline, scenes[:40], Asking(20)), paint(pipeline, scenes[40:], Asking(20, side=128))
    save_sheet(scenes, [*small, *large], unfinished / "samples.png")
    shutil.rmtree(out, ignore_errors=True)
    unfinished.rename(out)


def _save_history(history: History, folder: Path) -> None:
    (folder / "history.json").write_text(json.dumps(dataclasses.asdict(history)))


def _load_history(folder: Path) -> History:
    return History(**json.loads((folder / "history.json").read_text()))


if __name__ == "__main__":
    main()

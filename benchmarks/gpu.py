"""The product on a GPU beside what people run today: whole images, one client to sixteen.

Needs a GPU, NVIDIA's `trtexec` and a `tritonserver` with its TensorRT backend (NVIDIA's images have both), and the
extras `builder` and `client`. Makes a checkpoint of Stable Diffusion 1.5's size with random weights, builds it, serves
it, compares its images with diffusers', loads it with 1, 2, 4, 8 and 16 clients, and times diffusers eager and with
torch.compile on the same GPU. 512 x 512 pixels, 20 steps, DDIM, float16, batches of at most 8.

    python -m benchmarks.gpu [--work FOLDER] [--only PHASE] [--tritonserver PATH] [--trtexec PATH]

Its phases are `checkpoint`, `build`, `serve`, `torch` and `report`; what a phase has found lies in the folder, and a
phase that is there already is not run again (delete its file to run it again). `build` can be stopped and goes on
where it was. Writes out/bench-gpu.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.builder import ROOT, builder
from benchmarks.gpu_server import SIDE, STEPS, images, load, serving
from tests.support.tensorrt.checkpoints import write_full_size_sd1

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

OUT = ROOT / "out" / "bench-gpu.json"
CLIENTS = (1, 2, 4, 8, 16)
SEEDS = 4
LEAST_PSNR = 30.0
MAX_BATCH, TOKENS = 8, 77
COMPONENTS = ("denoiser", "vae_decoder", "text_encoder", "scheduler_step")
TARGETS = {"one_client_ms_over_compile": 0.95, "sixteen_clients_images_per_second_over_compile": 1.1}
_MIB = 1 << 20


@dataclass(frozen=True)
class Setting:
    """Where everything is, and with which programs.

    Args:
        work: folder of the checkpoint, the store and what the phases have found.
        tritonserver: a program.
        trtexec: a program, or None where PATH has it.
        jobs: components that are built at a time. More than one disturbs the timing of kernels a little.
        seconds: that clients send requests for.
    """

    work: Path
    tritonserver: str
    trtexec: Path | None
    jobs: int
    seconds: float

    @property
    def checkpoint(self) -> Path:
        """Folder of the checkpoint."""
        return self.work / "checkpoint"

    @property
    def store(self) -> Path:
        """Folder of the builder's store."""
        return self.work / "store"


def gpu() -> dict[str, Any]:
    """Product, driver and used bytes of the first GPU, as nvidia-smi says."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.used", "--format=csv,noheader,nounits"]
    line = subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()[0]
    name, driver, used = (text.strip() for text in line.split(","))
    return {"gpu": name, "driver": driver, "used_bytes": int(used) * _MIB}


def checkpoint(setting: Setting) -> Mapping[str, Any]:
    """Write a checkpoint whose pictures are noise and whose steps cost what they cost in production."""
    setting.checkpoint.mkdir(parents=True, exist_ok=True)
    write_full_size_sd1(setting.checkpoint)
    # Stable Diffusion 1.5's own file does not ask for float32; what diffusers writes today does.
    _change(setting.checkpoint / "vae" / "config.json", force_upcast=False)
    _change(setting.checkpoint / "tokenizer" / "tokenizer_config.json", model_max_length=TOKENS)
    return {"folder": str(setting.checkpoint)}


def _change(path: Path, **entries: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def build(setting: Setting) -> Mapping[str, Any]:
    """Export and compile each component, then let `build` put them together: it finds them in the store."""
    if setting.trtexec is not None:
        os.environ["PATH"] = f"{setting.trtexec.parent}:{os.environ['PATH']}"
    target = str(gpu()["gpu"]).replace(" ", "-")
    spec = setting.work / "spec.json"
    spec.write_text(json.dumps(_spec(setting, target)))
    where = ("--store", str(setting.store))
    source = builder("fetch", *where, "--path", str(setting.checkpoint))["digest"]

    def engine(component: str) -> dict[str, float]:
        exported = builder(
            "export", *where, "--source", source, "--component", component, "--precision", "float16"
        )  # fmt: skip
        compiled = builder(
            "compile", *where, "--onnx", exported["digest"], "--runtime", "tensorrt", "--target", target,
            "--shapes", json.dumps(_shapes()),
        )  # fmt: skip
        return {"export": exported["seconds"], "compile": compiled["seconds"]}

    with ThreadPoolExecutor(setting.jobs) as pool:
        seconds = dict(zip(COMPONENTS, pool.map(engine, COMPONENTS), strict=True))
    made = builder("build", "--no-check", "--spec", str(spec), "--out", str(setting.store))
    wanted = {key: made[key] for key in ("digest", "vramBytes", "serverFlags")}
    return {**wanted, "seconds": seconds, "all_cached": all(cached for _, _, cached in made["stages"][:-1])}


def _shapes() -> dict[str, dict[str, int]]:
    side = {"min": SIDE, "opt": SIDE, "max": SIDE}
    return {"batch": {"min": 1, "opt": MAX_BATCH, "max": MAX_BATCH}, "height": side, "width": side}


def _spec(setting: Setting, target: str) -> dict[str, Any]:
    return {
        "model": {"source": {"path": str(setting.checkpoint)}},
        "scheduler": {"type": "DDIM"},
        "precision": "float16",
        "shapes": _shapes(),
        "pipelines": [{"task": "generate", "steps": [STEPS]}],
        "engines": {"runtime": "tensorrt"},
        "targets": [{"name": "gpu", "gpu": {"product": target}}],
    }


def serve(setting: Setting) -> Mapping[str, Any]:
    """Load a server with clients, and keep its images of some seeds."""
    built = read(setting, "build")
    before = gpu()
    models = setting.store / "repositories" / built["digest"] / "models"
    with serving(setting.tritonserver, models, built["serverFlags"], setting.work / "tritonserver.log") as address:
        loaded = gpu()["used_bytes"] - before["used_bytes"]
        np.save(setting.work / "product.npy", images(address, range(SEEDS)))
        # A round that is not counted: what is loaded late is loaded before the first measurement.
        load(address, MAX_BATCH, 1.0)
        rounds = [asdict(load(address, clients, setting.seconds)) for clients in CLIENTS]
        used = gpu()["used_bytes"] - before["used_bytes"]
    return {**before, "loaded_bytes": loaded, "used_bytes": used, "rounds": rounds}


def torch_(setting: Setting) -> Mapping[str, Any]:
    """Time diffusers in a process of its own, so that its memory is not the server's."""
    command = [sys.executable, "-m", "benchmarks.gpu_torch", str(setting.checkpoint), str(SEEDS), str(setting.work)]
    subprocess.run(command, check=True, cwd=ROOT)
    found: Mapping[str, Any] = json.loads((setting.work / "torch.json").read_text())
    return found


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Of the worst of several images, dB."""
    errors = ((one.astype(np.float64) - other) ** 2).mean(axis=(1, 2, 3))
    return float(10 * np.log10(255**2 / max(errors.max(), 1e-9)))


def report(setting: Setting) -> Mapping[str, Any]:
    """Put together what the phases have found."""
    built, served, timed = (read(setting, name) for name in ("build", "serve", "torch"))
    product = {one["clients"]: one for one in served["rounds"]}
    compiled = {int(batch): ms for batch, ms in timed["compile"].items()}
    eager = {int(batch): ms for batch, ms in timed["eager"].items()}
    largest = max(compiled)
    ratios = {
        "one_client_ms_over_compile": product[1]["ms"] / compiled[1],
        "sixteen_clients_images_per_second_over_compile": (
            product[CLIENTS[-1]]["images_per_second"] * compiled[largest] / (1000 * largest)
        ),
    }
    worst = psnr(np.load(setting.work / "product.npy"), np.load(setting.work / "reference.npy"))
    return {
        "gpu": served["gpu"],
        "driver": served["driver"],
        "versions": {"torch": timed["torch"], "diffusers": version("diffusers")},
        "setting": {"side": SIDE, "steps": STEPS, "max_batch": MAX_BATCH, "precision": "float16", "scheduler": "DDIM"},
        "images_per_second": {
            "product": {clients: one["images_per_second"] for clients, one in product.items()},
            **{
                name: {batch: 1000 * batch / ms for batch, ms in times.items()}
                for name, times in (("eager", eager), ("compile", compiled))
            },
        },
        "ms_per_image": {
            "product": {clients: one["ms"] for clients, one in product.items()}, "eager": eager, "compile": compiled,
        },
        "mean_batch": {clients: one["mean_batch"] for clients, one in product.items()},
        "per_model_ms": {clients: one["per_model_ms"] for clients, one in product.items()},
        "vram_bytes": {
            "estimated": built["vramBytes"], "used": served["used_bytes"], "loaded": served["loaded_bytes"],
        },
        "build_seconds": built["seconds"],
        "psnr_db": worst,
        "ratios": ratios,
        "targets": TARGETS,
        "met": worst >= LEAST_PSNR
        and ratios["one_client_ms_over_compile"] <= TARGETS["one_client_ms_over_compile"]
        and ratios["sixteen_clients_images_per_second_over_compile"]
        >= TARGETS["sixteen_clients_images_per_second_over_compile"],
    }  # fmt: skip


PHASES: dict[str, Callable[[Setting], Mapping[str, Any]]] = {
    "checkpoint": checkpoint,
    "build": build,
    "serve": serve,
    "torch": torch_,
}


def read(setting: Setting, phase: str) -> dict[str, Any]:
    """What a phase has found.

    Raises:
        SystemExit: it has not been run.
    """
    path = setting.work / f"{phase}.done.json"
    if not path.exists():
        raise SystemExit(f"{path} is not there: run the phase {phase} first")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def run(setting: Setting, phase: str) -> None:
    """Run a phase, unless what it finds is there already."""
    path = setting.work / f"{phase}.done.json"
    if path.exists():
        return
    print(f"benchmarks.gpu: {phase}", file=sys.stderr)
    path.write_text(json.dumps(PHASES[phase](setting), indent=2) + "\n")


def table(result: Mapping[str, Any]) -> str:
    """The figures for people."""
    rate, ms, mean = (result[name] for name in ("images_per_second", "ms_per_image", "mean_batch"))
    lines = [f"{'whole images':<34}{'ms':>8}{'images/s':>10}{'mean batch':>12}"]
    for clients, taken in ms["product"].items():
        name = f"this project, {clients} clients"
        lines.append(f"{name:<34}{taken:>8.0f}{rate['product'][clients]:>10.2f}{mean[clients]:>12.2f}")
    for name, label in (("eager", "diffusers eager"), ("compile", "diffusers with torch.compile")):
        for batch, taken in ms[name].items():
            lines.append(f"{f'{label}, batch {batch}':<34}{taken:>8.0f}{rate[name][batch]:>10.2f}")
    lines.append(f"\n{'one client, ms of an image in':<34}{'queue':>8}{'input':>10}{'compute':>12}{'output':>8}")
    for model, spent in result["per_model_ms"][1].items():
        lines.append(f"{model:<34}" + "".join(f"{value:>10.2f}" for value in spent.values()))
    vram = result["vram_bytes"]
    lines.append(f"\nGPU memory: {vram['estimated'] / 1e9:.1f} GB estimated, {vram['used'] / 1e9:.1f} GB used")
    lines.append(f"worst image against diffusers: {result['psnr_db']:.1f} dB; ratios: {result['ratios']}")
    return "\n".join(lines)


def main() -> None:
    """Run the phases that are missing, write the file and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "gpu", help="folder for everything (6 GB)")
    parser.add_argument("--only", choices=[*PHASES, "report"], help="run this phase alone")
    parser.add_argument("--tritonserver", default=os.environ.get("TRITONSERVER", "tritonserver"))
    parser.add_argument("--trtexec", type=Path, default=os.environ.get("TRTEXEC"))
    parser.add_argument("--jobs", type=int, default=1, help="components that are built at a time (default: 1)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each number of clients (default: 10)")
    given = parser.parse_args()
    setting = Setting(given.work.resolve(), given.tritonserver, given.trtexec, given.jobs, given.seconds)
    setting.work.mkdir(parents=True, exist_ok=True)
    for phase in PHASES:
        if given.only in (None, phase):
            run(setting, phase)
    if given.only in (None, "report"):
        result = report(setting)
        OUT.parent.mkdir(exist_ok=True)
        OUT.write_text(json.dumps(result, indent=2) + "\n")
        print(table(result))


if __name__ == "__main__":
    main()

"""The product on a GPU beside what people run today: whole images, one client to sixteen.

Needs a GPU, NVIDIA's `trtexec` and a `tritonserver` with its TensorRT backend (NVIDIA's images have both), and the
extras `builder` and `client`. Makes a checkpoint of Stable Diffusion 1.5's size with random weights, builds it, serves
it, compares its images with diffusers', loads it with 1, 2, 4, 8 and 16 clients, and times diffusers eager and with
torch.compile on the same GPU. 512 x 512 pixels, 20 steps, DDIM, float16, batches of at most 8. With `--family sdxl` it
is Stable Diffusion XL's size: 1024 x 1024 pixels, 30 steps, Euler, batches of at most 4, 1 to 8 clients.

    python -m benchmarks.gpu [--family sd1|sdxl] [--side N] [--work FOLDER] [--only PHASE] [--tritonserver PATH]
        [--trtexec PATH] [--acceleration JSON [--base FOLDER]]

Its phases are `checkpoint`, `build`, `serve`, `torch` and `report`; what a phase has found lies in the folder, and a
phase that is there already is not run again (delete its file to run it again). `build` can be stopped and goes on
where it was. Writes out/bench-gpu.json (out/bench-gpu-sdxl.json) and prints a table.

With `--acceleration '{"deepCache": {"interval": 3}}'` the pipeline has that `spec.acceleration`, and the file is
out/bench-gpu-accelerated.json; its PSNR is the price then. `--base` names the folder of a run without, whose
checkpoint, store and times of torch are used.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.builder import ROOT, builder
from benchmarks.gpu_cases import CASES
from benchmarks.gpu_report import Phases, psnr, summary, table
from benchmarks.gpu_server import images, load, serving
from diffusion_contract.documents import read_local
from diffusion_contract.engines import engines
from tests.support.tensorrt.checkpoints import write_full_size_sd1, write_full_size_sdxl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.gpu_cases import Case
    from diffusion_contract.engines import EngineSpec

OUT = ROOT / "out"
SEEDS = 4
TOKENS = 77
WRITERS = {"sd1": write_full_size_sd1, "sdxl": write_full_size_sdxl}
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
        acceleration: of the pipeline; empty for none.
        base: folder of an earlier run whose checkpoint, store and times of torch are used, or that of this run.
        family: name of the case.
        case: what is measured.
    """

    work: Path
    tritonserver: str
    trtexec: Path | None
    jobs: int
    seconds: float
    acceleration: dict[str, Any]
    base: Path
    family: str
    case: Case

    @property
    def checkpoint(self) -> Path:
        """Folder of the checkpoint."""
        return self.base / "checkpoint"

    @property
    def store(self) -> Path:
        """Folder of the builder's store."""
        return self.base / "store"

    @property
    def out(self) -> Path:
        """The file of all figures."""
        return OUT / f"bench-{base_name(self.family)}{'-accelerated' * bool(self.acceleration)}.json"

    def phase_file(self, phase: str) -> Path:
        """File with what a phase has found."""
        folder = self.base if phase in ("checkpoint", "torch") else self.work
        return folder / f"{phase}.done.json"


def base_name(family: str) -> str:
    """Of the files and the folder of a family's run."""
    return "gpu" if family == "sd1" else f"gpu-{family}"


def gpu() -> dict[str, Any]:
    """Product, driver and used bytes of the first GPU that is visible, as nvidia-smi says."""
    index = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    query = [
        "nvidia-smi",
        f"--id={index}",
        "--query-gpu=name,driver_version,memory.used",
        "--format=csv,noheader,nounits",
    ]
    line = subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()[0]
    name, driver, used = (text.strip() for text in line.split(","))
    return {"gpu": name, "driver": driver, "used_bytes": int(used) * _MIB}


def checkpoint(setting: Setting) -> Mapping[str, Any]:
    """Write a checkpoint whose images are noise and whose steps cost what they cost in production."""
    setting.checkpoint.mkdir(parents=True, exist_ok=True)
    WRITERS[setting.family](setting.checkpoint)
    # Stable Diffusion 1.5's own file does not ask for float32, nor does the VAE that SDXL is served with in half
    # precision; what diffusers writes today does.
    _change(setting.checkpoint / "vae" / "config.json", force_upcast=False)
    for tokenizer in setting.case.tokenizers:
        _change(setting.checkpoint / tokenizer / "tokenizer_config.json", model_max_length=TOKENS)
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

    def build_engine(engine: EngineSpec) -> dict[str, float]:
        exported = builder(
            "export", *where, "--source", source, "--component", engine.component, "--precision", engine.precision,
            "--options", json.dumps(engine.options(lambda _: source)),
        )  # fmt: skip
        compiled = builder(
            "compile", *where, "--onnx", exported["digest"], "--runtime", "tensorrt", "--sku", target,
            "--shapes", json.dumps(_shapes(setting.case)),
        )  # fmt: skip
        return {"export": exported["seconds"], "compile": compiled["seconds"]}

    with ThreadPoolExecutor(setting.jobs) as pool:
        specs = engines(read_local(_spec(setting, target)))
        seconds = dict(zip((item.name for item in specs), pool.map(build_engine, specs), strict=True))
    repository = builder("build", "--no-parity", "--spec", str(spec), "--store", str(setting.store))
    figures = {key: repository[key] for key in ("digest", "estimatedGPUMemoryBytes", "serverFlags")}
    return {**figures, "seconds": seconds, "all_cached": all(cached for _, _, cached in repository["stages"][:-1])}


def _shapes(case: Case) -> dict[str, dict[str, int]]:
    side = {"min": case.side, "opt": case.side, "max": case.side}
    return {"batch": {"min": 1, "opt": case.max_batch, "max": case.max_batch}, "height": side, "width": side}


def _spec(setting: Setting, target: str) -> dict[str, Any]:
    return {
        "model": {"source": {"path": str(setting.checkpoint)}, "family": setting.case.family},
        **setting.case.spec,
        "precision": "float16",
        "shapes": _shapes(setting.case),
        "pipelines": [{"task": "generate", "steps": [setting.case.steps]}],
        "engines": {"runtime": "tensorrt"},
        **({"acceleration": setting.acceleration} if setting.acceleration else {}),
        "targets": [{"name": "gpu", "gpu": {"product": target}}],
    }


def serve(setting: Setting) -> Mapping[str, Any]:
    """Load a server with clients, and keep its images of some seeds."""
    built = read(setting, "build")
    before = gpu()
    models = setting.store / "repositories" / built["digest"] / "models"
    with serving(setting.tritonserver, models, built["serverFlags"], setting.work / "tritonserver.log") as address:
        loaded = gpu()["used_bytes"] - before["used_bytes"]
        np.save(setting.work / "product.npy", images(address, setting.case, range(SEEDS)))
        # A round that is not counted: what is loaded late is loaded before the first measurement.
        load(address, setting.case, setting.case.max_batch, 1.0)
        rounds = [asdict(load(address, setting.case, clients, setting.seconds)) for clients in setting.case.clients]
        used = gpu()["used_bytes"] - before["used_bytes"]
    return {**before, "loaded_bytes": loaded, "used_bytes": used, "rounds": rounds}


def torch_(setting: Setting) -> Mapping[str, Any]:
    """Time diffusers in a process of its own, so that its memory is not the server's."""
    command = [
        sys.executable, "-m", "benchmarks.gpu_torch", str(setting.checkpoint), str(SEEDS), str(setting.base),
        f"--family={setting.family}", f"--side={setting.case.side}",
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT)
    figures: Mapping[str, Any] = json.loads((setting.base / "torch.json").read_text())
    return figures


def report(setting: Setting) -> Mapping[str, Any]:
    """Put together what the phases have found."""
    phases = Phases(*(read(setting, name) for name in ("build", "serve", "torch")))
    worst = psnr(np.load(setting.work / "product.npy"), np.load(setting.base / "reference.npy"))
    figures = summary(phases, worst, {"torch": phases.torch["torch"], "diffusers": version("diffusers")})
    return figures | ({"acceleration": setting.acceleration} if setting.acceleration else {})


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
    path = setting.phase_file(phase)
    if not path.exists():
        raise SystemExit(f"{path} is not there: run the phase {phase} first")
    figures: dict[str, Any] = json.loads(path.read_text())
    return figures


def run(setting: Setting, phase: str) -> None:
    """Run a phase, unless what it finds is there already."""
    path = setting.phase_file(phase)
    if path.exists():
        return
    print(f"benchmarks.gpu: {phase}", file=sys.stderr)
    path.write_text(json.dumps(PHASES[phase](setting), indent=2) + "\n")


def main() -> None:
    """Run the phases that are missing, write the file and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=CASES, default="sd1", help="what is measured (default: sd1)")
    parser.add_argument("--side", type=int, help="pixels of an edge (default: the family's)")
    parser.add_argument("--work", type=Path, help="folder for everything, 6 GB (default: out/gpu, out/gpu-sdxl)")
    parser.add_argument("--only", choices=[*PHASES, "report"], help="run this phase alone")
    parser.add_argument("--tritonserver", default=os.environ.get("TRITONSERVER", "tritonserver"))
    parser.add_argument("--trtexec", type=Path, default=os.environ.get("TRTEXEC"))
    parser.add_argument("--jobs", type=int, default=1, help="components that are built at a time (default: 1)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each number of clients (default: 10)")
    parser.add_argument("--acceleration", type=json.loads, default={}, help="spec.acceleration, as JSON")
    parser.add_argument("--base", type=Path, help="folder of a run without acceleration (default: that of --work)")
    given = parser.parse_args()
    case = CASES[given.family]
    work = (given.work or OUT / base_name(given.family)).resolve()
    setting = Setting(
        work, given.tritonserver, given.trtexec, given.jobs, given.seconds, given.acceleration,
        given.base.resolve() if given.base is not None else work,
        given.family, replace(case, side=given.side or case.side),
    )  # fmt: skip
    setting.work.mkdir(parents=True, exist_ok=True)
    for phase in PHASES:
        if given.only in (None, phase):
            run(setting, phase)
    if given.only in (None, "report"):
        figures = report(setting)
        setting.out.parent.mkdir(exist_ok=True)
        setting.out.write_text(json.dumps(figures, indent=2) + "\n")
        print(table(figures))


if __name__ == "__main__":
    main()

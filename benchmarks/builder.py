"""What a build that has nothing to do takes, and how much memory and time the stages need that do something.

Per checkpoint, medians of several runs, each stage in a process of its own:

* `noop_seconds`: `diffusion-builder build` with everything cached, from start to end of the process.
* `noop_seconds_after_imports`: the same without the time of importing; a first run tells which modules are imported,
  the measured one imports these, then looks at the clock.
* `export_peak_over_weights`: largest resident size of the process that exports a component (`ru_maxrss`: everything,
  also pages of files that are mapped into memory) less its size after torch, diffusers, transformers and ONNX Runtime
  have been imported (`import_bytes`, which no weights can change), over the bytes of the component's weights on disk.
  `export_peak_bytes` is the size with nothing taken off.
* `compile_seconds`: what the compile stage says of itself.

The large checkpoint has random weights: SD 1.5's text encoder and VAE, and a UNet of its shape with half as many
channels, or with `--full` the whole one (3.4 GB). Writes out/bench-builder.json.

    python -m benchmarks.builder [--full] [--runs N]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "demo-checkpoint"
OUT = ROOT / "out" / "bench-builder.json"
# Component to the folder of the checkpoint with its weights.
WEIGHTS = {"text_encoder": "text_encoder", "denoiser": "unet", "vae_decoder": "vae"}
MAX_NOOP_SECONDS = 2.0
MAX_PEAK_OVER_WEIGHTS = 2.5

_LIST = """
import json, sys
from diffusion_builder.cli import main as cli
cli.main(json.loads(sys.argv[1]))
print(json.dumps([name for name in sys.modules if name.startswith("diffusion_builder.")]))
"""
_AFTER = """
import importlib, json, sys, time
for name in json.loads(sys.argv[2]):
    importlib.import_module(name)
from diffusion_builder.cli import main as cli
began = time.monotonic()
cli.main(json.loads(sys.argv[1]))
print(json.dumps(time.monotonic() - began))
"""
_PEAK = """
import json, os, resource, sys
import diffusers, onnxruntime, torch, transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel
from diffusion_builder.cli import main as cli
from diffusion_builder.graphs import deviation
from diffusion_builder.graphs import onnx_graph
imported = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
cli.main(json.loads(sys.argv[1]))
print(json.dumps([imported, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""
_WRITE = """
import sys
from pathlib import Path
from benchmarks.checkpoints import write_large
write_large(Path(sys.argv[1]), full=sys.argv[2] == "full")
"""


@dataclass(frozen=True)
class Subject:
    """What is measured: a checkpoint, and how many runs the medians are of."""

    name: str
    checkpoint: Path
    runs: int


def python(code: str, *arguments: str) -> Any:  # noqa: ANN401 - any JSON
    """Run code in a process of its own; returns the JSON of the last line that it prints."""
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if process.returncode:
        raise SystemExit(f"{process.stderr[-2000:]}\na measured process ended with {process.returncode}")
    return json.loads(process.stdout.splitlines()[-1]) if process.stdout.strip() else None


def stage(code: str, *arguments: str) -> Any:  # noqa: ANN401 - any JSON
    """Run a command of the builder inside of one of the snippets above."""
    return python(code, json.dumps(["--progress", "plain", *arguments]))


def builder(*arguments: str) -> dict[str, Any]:
    """Run a command of the builder; returns its result."""
    command = [sys.executable, "-m", "diffusion_builder", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if process.returncode:
        raise SystemExit(f"{process.stderr[-2000:]}\ndiffusion-builder {arguments[0]} ended with {process.returncode}")
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def noop(subject: Subject, store: Path) -> dict[str, float]:
    """Build once, then measure builds that find everything."""
    arguments = ["build", "--no-parity", "--path", str(subject.checkpoint), "--store", str(store)]
    builder(*arguments)
    modules = json.dumps(stage(_LIST, *arguments))
    whole, after = [], []
    for _ in range(max(subject.runs, 5)):
        began = time.monotonic()
        builder(*arguments)
        whole.append(time.monotonic() - began)
        after.append(python(_AFTER, json.dumps(arguments), modules))
    return {"noop_seconds": median(whole), "noop_seconds_after_imports": median(after)}


def component(subject: Subject, name: str, scratch: Path) -> dict[str, float]:
    """Export and compile one component in fresh stores."""
    weights = sum(path.stat().st_size for path in (subject.checkpoint / WEIGHTS[name]).glob("*.safetensors"))
    peaks, imports, seconds = [], [], []
    for _ in range(subject.runs):
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            where = ("--store", folder)
            source = builder("fetch", *where, "--path", str(subject.checkpoint))["digest"]
            imported, peak = stage(_PEAK, "export", *where, "--source", source, "--component", name)
            onnx = builder("export", *where, "--source", source, "--component", name)["digest"]
            seconds.append(builder("compile", *where, "--onnx", onnx)["seconds"])
            peaks.append(peak)
            imports.append(imported)
    over = [(peak - imported) / weights for peak, imported in zip(peaks, imports, strict=True)]
    return {
        "weights_bytes": weights,
        "import_bytes": median(imports),
        "export_peak_bytes": median(peaks),
        "export_peak_over_weights": median(over),
        "compile_seconds": median(seconds),
    }


def measure(subject: Subject) -> dict[str, Any]:
    """All metrics of one checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = noop(subject, Path(folder) / "store")
        parts = {name: component(subject, name, Path(folder)) for name in WEIGHTS}
    keys = ("export_peak_over_weights", "compile_seconds", "export_peak_bytes", "import_bytes", "weights_bytes")
    return {**metrics, "runs": subject.runs, **{key: {name: parts[name][key] for name in parts} for key in keys}}


def table(results: dict[str, Any]) -> str:
    """The metrics for people."""
    lines = [f"{'checkpoint':<10} {'no-op s':>8} {'after imports s':>16}"]
    lines += [
        f"{name:<10} {item['noop_seconds']:>8.2f} {item['noop_seconds_after_imports']:>16.2f}"
        for name, item in results.items()
    ]
    lines += [
        "",
        f"{'checkpoint':<10} {'component':<13} {'weights MB':>10} {'peak MB':>8} {'ratio':>6} {'compile s':>9}",
    ]
    for name, item in results.items():
        lines += [
            f"{name:<10} {part:<13} {item['weights_bytes'][part] / 1e6:>10.0f} "
            f"{item['export_peak_bytes'][part] / 1e6:>8.0f} {ratio:>6.2f} {item['compile_seconds'][part]:>9.1f}"
            for part, ratio in item["export_peak_over_weights"].items()
        ]
    return "\n".join(lines)


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="a whole UNet of SD 1.5, which needs 12 GiB of memory")
    parser.add_argument("--runs", type=int, default=3, help="the median of so many counts (default: 3)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large"
        python(_WRITE, str(large), "full" if arguments.full else "half")
        subjects = (Subject("demo", DEMO, arguments.runs), Subject("large", large, arguments.runs))
        results = {subject.name: measure(subject) for subject in subjects}
    large_ratios = results["large"]["export_peak_over_weights"].values()
    result = {
        "full": arguments.full,
        "checkpoints": results,
        "targets": {"noop_seconds_after_imports": MAX_NOOP_SECONDS, "export_peak_over_weights": MAX_PEAK_OVER_WEIGHTS},
        # The ratio says something only where weights are much more than the interpreter's own objects.
        "met": max(item["noop_seconds_after_imports"] for item in results.values()) <= MAX_NOOP_SECONDS
        and max(large_ratios) <= MAX_PEAK_OVER_WEIGHTS,
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()

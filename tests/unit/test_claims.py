"""The README and the first page of the documentation: every number has a source, and every promise a test.

A number that is in no row of `NUMBERS` fails, and so does a row whose source says something else: a new number comes
with the file of code, configuration or measurement that it is from. `PROMISES` names the test of each promise.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from diffusion_builder.models.schedule.classes import SchedulerType
from diffusion_builder.sources.layout import PIPELINES
from diffusion_contract.python_models import TASKS
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES = ("README.md", "docs/index.md")
WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen")
# Names that have digits, and what is no prose: fenced blocks, inline code, targets of links.
NAMES = re.compile(
    r"Stable Diffusion \d\.[\dx](?:(?:,| and) \d\.x)*|SD \d|NVIDIA H\d+|Apache-2\.0|ADR \d+|float\d+|bfloat\d+|base64"
)
NO_PROSE = re.compile(r"^```.*?^```$|`[^`\n]*`|\]\([^)]*\)", flags=re.MULTILINE | re.DOTALL)
NUMBER = re.compile(rf"\d+(?:\.\d+)*|\b(?:{'|'.join(WORDS)})\b", flags=re.IGNORECASE)


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def steps_of_the_demo() -> list[str]:
    spec = yaml.safe_load(text_of("examples/pipeline.yaml"))["spec"]
    return [str(steps) for entry in spec["pipelines"] for steps in entry["steps"]]


def debian_of_the_tests() -> list[str]:
    job = yaml.safe_load(text_of(".github/workflows/test.yaml"))["jobs"]["test"]
    return [job["container"]["image"].removeprefix("debian:")]


def oldest_python() -> list[str]:
    return re.findall(r">=([\d.]+)", tomllib.loads(text_of("pyproject.toml"))["project"]["requires-python"])


def go_of_the_devcluster() -> list[str]:
    modules = (ROOT / "tools" / "devcluster" / "go").glob("*/go.mod")
    return sorted(
        {found for path in modules for found in re.findall(r"^go (\d+\.\d+)", path.read_text(), re.MULTILINE)}
    )


def memory_of_the_example() -> list[str]:
    spec = yaml.safe_load(text_of("examples/stable-diffusion-1-5.yaml"))["spec"]
    resources = [spec["engines"]["resources"], *(target["resources"] for target in spec["targets"])]
    return [str(max(int(entry["requests"]["memory"].removesuffix("Gi")) for entry in resources))]


def commands_to_an_image() -> list[str]:
    section = text_of("README.md").partition("## On your own cluster")[2]
    block = section.partition("```console\n")[2].partition("```")[0]
    return [WORDS[block.count("$ ") - 2].capitalize()]


def schedulers() -> list[str]:
    return [WORDS[len(SchedulerType) - 2]]


def parity_limits() -> list[str]:
    """Float32's and half precision's, as the builder has them."""
    rows = [
        (precision, number)
        for path in (ROOT / "builder" / "diffusion_builder").rglob("*.py")
        for precision, number in re.findall(r"^    Precision\.(\w+): (\d+)\.0,$", path.read_text(), re.MULTILINE)
    ]
    limits = dict(rows)
    return [limits["FLOAT32"], limits["FLOAT16"]]


@dataclass(frozen=True)
class Number:
    """Numbers of one place in the pages, and the file that they are from."""

    pattern: str
    source: Callable[[], list[str]]


NUMBERS = (
    Number(r"at (\d+) and at (\d+) steps", steps_of_the_demo),
    Number(r"Debian (\d+),", debian_of_the_tests),
    Number(r"Python ([\d.]+),", oldest_python),
    Number(r"Go ([\d.]+) is installed", go_of_the_devcluster),
    Number(r"a node with (\d+) GiB of memory", memory_of_the_example),
    Number(r"(\w+) commands to an image", commands_to_an_image),
    Number(r"\[(\w+) schedulers\]", schedulers),
    Number(r"at least (\d+) dB in float32 and (\d+) dB in float16 and bfloat16", parity_limits),
)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.pattern)
def test_a_number_is_that_of_its_source(number: Number) -> None:
    places = [match for page in PAGES for match in re.finditer(number.pattern, text_of(page))]
    assert places
    assert [list(match.groups()) for match in places] == [number.source()] * len(places)


def unsourced(text: str) -> list[str]:
    """Numbers of the prose that no row of NUMBERS has, with the words around them."""
    sourced = re.sub("|".join(number.pattern.replace("(", "(?:") for number in NUMBERS), " ", text)
    prose = NAMES.sub(" ", NO_PROSE.sub(" ", sourced))
    return [prose[max(match.start() - 30, 0) : match.end() + 20].strip() for match in NUMBER.finditer(prose)]


@pytest.mark.parametrize("page", PAGES)
def test_every_number_of_a_page_has_a_source(page: str) -> None:
    assert unsourced(text_of(page)) == []


@pytest.mark.parametrize(
    "text", ["It takes 5 seconds.", "1.5 times as fast", "twelve schedulers", "35 dB", "Debian 12"]
)
def test_a_number_without_a_source_is_found(text: str) -> None:
    assert len(unsourced(text)) == 1


# Words of a page → the test of it, by file and the name of its function.
PROMISES = {
    "traffic only after every ensemble has answered a real request": (
        "tests/unit/builder/test_verify.py",
        "tests/cluster/test_slice.py",
    ),
    "a better denoiser is promoted, a worse one rejected": ("tests/cluster/test_canary.py",),
    "metrics and images are compared with the stable revision": (
        "tests/unit/operator/test_analysis.py",
        "tests/unit/builder/test_compare.py",
    ),
    "serve variants at fixed weights": ("tests/unit/operator/test_experiment.py",),
    "A field that does not exist is rejected by `kubectl` and by server-side apply": (
        "tests/unit/operator/test_api.py",
        "tests/cluster/test_admission.py",
    ),
    "Jobs build missing artifacts into a content-addressed store": ("tests/unit/builder/test_store.py",),
    "N steps are N nodes of a Triton ensemble": ("tests/unit/builder/test_unroll.py",),
    "different steps of different requests share one denoiser batch": ("tests/component/test_batching.py",),
    "changing it compiles nothing": ("tests/unit/operator/test_counts.py", "tests/cluster/test_slice.py"),
    "another UNet rebuilds one engine per SKU, another number of replicas none": (
        "tests/unit/operator/test_counts.py",
    ),
    "Parity is tested": ("tests/component/test_parity.py", "tests/component/test_schedulers.py"),
    "optionally with ControlNet, IP-Adapter or prompt embeddings": ("tests/component/test_tasks.py",),
    "or uses yours when `KUBECONFIG` is set": ("tests/unit/test_demo.py",),
}


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_is_made_and_its_test_exists(promise: str) -> None:
    assert any(promise in text_of(page) for page in PAGES)
    assert [name for name in PROMISES[promise] if not re.search(r"^def test_", text_of(name), re.MULTILINE)] == []


def test_every_point_of_how_it_works_is_a_promise_with_a_test() -> None:
    section = text_of("README.md").partition("## How it works\n")[2].partition("\n## ")[0]
    points = re.findall(r"^\* (.+)$", section, flags=re.MULTILINE)
    assert len(points) > 2
    assert [point for point in points if not any(promise in point for promise in PROMISES)] == []


def test_every_task_of_the_api_is_named_and_no_other() -> None:
    names = {"generate": "text to image", "img2img": "image to image", "inpaint": "inpainting"}
    assert set(names) == set(TASKS)
    for page in PAGES:
        assert all(name in text_of(page).lower() for name in names.values()), page


@pytest.mark.parametrize(("family", "pipeline"), [("SDXL", "XL"), ("SD 3", "3"), ("FLUX", "Flux")])
def test_a_family_that_is_called_unsupported_is_refused(family: str, pipeline: str) -> None:
    sentences = re.findall(r"^(.+?) (?:are|is) not supported", text_of("docs/index.md"), flags=re.MULTILINE)
    if any(family in sentence for sentence in sentences):
        assert not [name for name in PIPELINES if pipeline in name]


@pytest.mark.parametrize("command", ["demo", "demo-canary", "test", "test-integrations", "docs", "images"])
def test_a_command_of_the_readme_is_a_target(command: str) -> None:
    assert f"make {command}" in text_of("README.md")
    assert re.search(rf"^{command}:", text_of("Makefile"), flags=re.MULTILINE)


def test_the_integrations_that_the_readme_names_are_those_that_run() -> None:
    [names] = re.findall(r"make test-integrations +# (.+)$", text_of("README.md"), flags=re.MULTILINE)
    [targets] = re.findall(r"^INTEGRATIONS \?= (.+)$", text_of("Makefile"), flags=re.MULTILINE)
    programs = {
        "autoscaling": "KEDA",
        "alerts": "Prometheus",
        "gateway": "Envoy Gateway",
        "gitops": "Argo CD's engine",
        "openai_node": "OpenAI's client for Node.js",
        "metrics_adapter": "Prometheus and its adapter",
        "quickstart": "a registry that asks for a login",
        "tensorrt": "TensorRT for RTX",
    }
    assert set(targets.split()) - {"dashboards", "images_api"} == set(programs)
    assert all(program in names for program in programs.values())


def measurement(name: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    return figures


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("bench-gpu", "1 / 2 / 4 / 8 / 16 clients"),
        ("bench-gpu-accelerated", "the same with `deepCache: {interval: 3}`"),
    ],
)
def test_the_table_of_the_gpu_is_what_the_benchmark_has_written(name: str, label: str) -> None:
    text, figures = text_of("docs/performance.md"), measurement(name)
    [line] = re.findall(rf"^\| {re.escape(label)} \|(.+)\|$", text, flags=re.MULTILINE)
    times, rates, batches = ([float(number) for number in cell.split("/")] for cell in line.split("|"))
    assert times == [round(ms) for ms in figures["ms_per_image"]["product"].values()]
    assert rates == [round(rate, 2) for rate in figures["images_per_second"]["product"].values()]
    assert batches == pytest.approx(list(figures["mean_batch"].values()), abs=0.06)
    ratios = figures["ratios"].values()
    assert all(f"{ratio:.2f}" in text for ratio in ratios)
    assert f"{figures['psnr_db']:.1f} dB" in text


def test_the_estimates_of_the_sizing_follow_from_what_was_measured() -> None:
    text = text_of("docs/sizing.md")
    measured = round(measurement("bench-gpu")["images_per_second"]["product"]["16"], 2)
    rows = re.findall(r"^\| ([\w ]+) \| \d+ GB \| (\d+) TFLOP/s \| ([\d.]+) \|(.*)\|$", text, flags=re.MULTILINE)
    [(_, peak, rate, _)] = [row for row in rows if "**measured**" in row[3]]
    assert float(rate) == measured
    estimates = {name: (float(rate), float(other) / float(peak) * measured) for name, other, rate, _ in rows[1:]}
    assert set(estimates) == {"H100 SXM", "A10G", "L4"}
    assert {name: round(expected, 1) for name, (_, expected) in estimates.items()} == {
        name: stated for name, (stated, _) in estimates.items()
    }
    assert all("**estimate**" in row[3] for row in rows[1:])

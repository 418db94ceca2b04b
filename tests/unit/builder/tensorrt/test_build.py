"""The stage: what names an engine, what a cache hit needs, what a failure leaves behind."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from diffusion_builder.engines.tensorrt.build import PLAN, PlanRequest, compile_plan
from diffusion_builder.engines.tensorrt.command import TensorRTOptions
from diffusion_builder.errors import BadInputError, BuilderError, Reason
from diffusion_builder.store import Artifact, Kind, Recipe, Store
from diffusion_contract.enums import Component
from diffusion_contract.spec import Shapes
from diffusion_contract.spec.engines import BatchRange, PixelRange
from tests.support.tensorrt import fake_programs as programs

if TYPE_CHECKING:
    from pathlib import Path

SIDE = PixelRange(min=64, opt=64, max=128)
SHAPES = Shapes(batch=BatchRange(min=1, opt=4, max=8), height=SIDE, width=SIDE)
FACTS = {
    Component.DENOISER: {"channels": 4, "text_width": 32, "text_length": 16, "pixels_per_latent": 8},
    Component.TEXT_ENCODER: {"text_length": 16, "text_width": 32},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = programs.write(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def onnx(store: Store, component: Component = Component.DENOISER, content: str = "c") -> Artifact:
    def write(folder: Path) -> dict[str, object]:
        (folder / "model.onnx").write_text("graph")
        return {"component": str(component), "content": content, "facts": FACTS[component]}

    return store.publish(Recipe(Kind.ONNX, {"component": str(component), "content": content}), write)[0]


@pytest.fixture
def request_(store: Store) -> PlanRequest:
    return PlanRequest(onnx(store), "NVIDIA-L4", SHAPES, TensorRTOptions())


def compiled(store: Store, request: PlanRequest) -> tuple[Artifact, bool]:
    return compile_plan(store, request, lambda _phase, _fraction: None)


def test_a_plan_is_published_with_what_it_is_for(store: Store, request_: PlanRequest) -> None:
    artifact, cached = compiled(store, request_)
    extra = artifact.manifest.extra
    assert not cached
    assert (artifact.path / PLAN).read_text() == "plan\n"
    assert (extra["runtime"], extra["runtimeVersion"], extra["target"]) == ("tensorrt", "10.13.3", "NVIDIA-L4")
    assert (extra["profiles"], extra["planChecked"]) == (2, False)


def test_a_plan_that_is_there_needs_no_gpu(store: Store, request_: PlanRequest, tmp_path: Path) -> None:
    first, _ = compiled(store, request_)
    programs.write(tmp_path / "bin", trtexec='test "$1" = --help', gpus="No devices found.")
    again, cached = compiled(store, request_)
    assert (again.manifest.digest, cached) == (first.manifest.digest, True)


def test_everything_that_changes_a_plan_changes_its_name(store: Store, request_: PlanRequest, tmp_path: Path) -> None:
    def digest(request: PlanRequest) -> str:
        return compiled(store, request)[0].manifest.digest

    larger = SHAPES.model_copy(update={"height": PixelRange(min=64, opt=64, max=192)})
    names = {
        digest(request_),
        digest(replace(request_, onnx=onnx(store, content="other"))),
        digest(replace(request_, shapes=larger)),
        digest(replace(request_, options=TensorRTOptions(optimization_level=5))),
        digest(replace(request_, options=TensorRTOptions(workspace_mib=1024))),
        digest(replace(request_, target="NVIDIA-L4-SHARED")),
    }
    programs.write(tmp_path / "bin", banner=programs.BANNER.replace("101303", "110100"))
    names.add(digest(request_))
    programs.write(tmp_path / "bin", gpus="GPU 0: NVIDIA H200 (UUID: GPU-1)")
    names.add(digest(replace(request_, target="NVIDIA-H200")))
    assert len(names) == 8


def test_a_graph_that_came_out_the_same_is_not_compiled_again(store: Store, request_: PlanRequest) -> None:
    first, _ = compiled(store, request_)
    # Another export of the same content.
    same = replace(request_.onnx, manifest=replace(request_.onnx.manifest, digest="0" * 64))
    again, cached = compiled(store, replace(request_, onnx=same))
    assert (again.manifest.digest, cached) == (first.manifest.digest, True)


def test_timings_are_kept_per_gpu_and_version(store: Store, request_: PlanRequest) -> None:
    compiled(store, request_)
    compiled(store, replace(request_, options=TensorRTOptions(optimization_level=5)))
    (cache,) = (store.root / "timing").iterdir()
    assert cache.name == "NVIDIA-L4-10.13.3"
    assert cache.read_text() == "entry\nentry\n"


def test_the_wrong_gpu_leaves_nothing_behind(store: Store, request_: PlanRequest) -> None:
    with pytest.raises(BadInputError) as caught:
        compiled(store, replace(request_, target="NVIDIA-H200"))
    assert caught.value.reason is Reason.WRONG_GPU
    assert list((store.root / "engines").iterdir()) == []


def test_a_failed_build_leaves_nothing_behind(store: Store, request_: PlanRequest, tmp_path: Path) -> None:
    fails = (
        'test "$1" = --help && exit 0\necho "[E] [TRT] Error Code 2: OutOfMemory (Requested size was 7 bytes.)"; exit 1'
    )
    programs.write(tmp_path / "bin", trtexec=fails)
    with pytest.raises(BuilderError) as caught:
        compiled(store, request_)
    assert caught.value.reason is Reason.OUT_OF_GPU_MEMORY
    assert list((store.root / "engines").iterdir()) == []
    assert not (store.root / "timing").exists()


def test_a_graph_that_does_not_tell_its_sizes_is_rejected(store: Store, request_: PlanRequest) -> None:
    graph = request_.onnx.manifest
    unknown = replace(request_.onnx, manifest=replace(graph, extra={**graph.extra, "facts": {"channels": 4}}))
    with pytest.raises(BadInputError, match="export it again") as caught:
        compiled(store, replace(request_, onnx=unknown))
    assert caught.value.reason is Reason.INVALID_ARGUMENT

"""Every shape of checkpoint exports, agrees with torch, and gives the same bytes again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.graphs import deviation
from diffusion_builder.graphs.onnx_files import MODEL, WEIGHTS
from diffusion_builder.stages.run import FetchArguments, export, fetch
from diffusion_builder.store import Artifact, Kind, Store
from diffusion_contract.enums import Component, Precision
from tests.support.builder import parts
from tests.support.builder.repository import context
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FLOAT16, _BFLOAT16 = onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16


_one_thread = pytest.fixture(scope="module", autouse=True)(parts.one_thread)


def _export(
    root: Path, writers: Mapping[str, parts.Write], component: Component, precision: str = "float32", **options: object
) -> Artifact:
    store = Store(root / "store")
    source = parts.source(store, writers, root / "source")
    result = export(context(root / "store"), source, component, precision, json.dumps(options))
    assert result["maxRelativeError"] <= deviation.TOLERANCES[Precision(result["precision"])]
    return store.get(Kind.ONNX, result["digest"])


def _types(artifact: Artifact) -> set[int]:
    """Element types of the weights."""
    graph = onnx.load_model(str(artifact.path / MODEL), load_external_data=False).graph
    return {tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1}


@pytest.mark.parametrize(("precision", "element"), [("float16", _FLOAT16), ("bfloat16", _BFLOAT16)])
def test_half_precision_is_in_the_graph_with_float32_at_its_ends(tmp_path: Path, precision: str, element: int) -> None:
    artifact = _export(tmp_path, {"unet": parts.unet("sd2")}, Component.DENOISER, precision, guidanceRescale=True)
    assert _types(artifact) == {element}
    graph = onnx.load_model(str(artifact.path / MODEL), load_external_data=False).graph
    ends = {item.type.tensor_type.elem_type for item in (*graph.input, *graph.output)}
    assert ends == {onnx.TensorProto.FLOAT}


def test_attention_is_in_the_form_that_tensorrt_turns_into_one_kernel(tmp_path: Path) -> None:
    artifact = _export(tmp_path, {"unet": parts.unet("heads-of-40")}, Component.DENOISER, "float16")
    graph = onnx.load_model(str(artifact.path / MODEL), load_external_data=False).graph
    makers = {name: node for node in graph.node for name in node.output}
    readers = {name: node for node in graph.node for name in node.input}
    softmaxes = [node for node in graph.node if node.op_type == "Softmax"]
    # Self and cross attention of one block down, one in the middle and two up.
    assert len(softmaxes) == 2 * 4
    for softmax in softmaxes:
        assert makers[softmax.input[0]].op_type == readers[softmax.output[0]].op_type == "MatMul"
    # The scale is a constant and not computed from shapes.
    assert not [node for node in graph.node if node.op_type == "Sqrt"]
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    products = {node.name: weights.get(node.input[1]) for node in graph.node if node.op_type == "MatMul"}
    inside = {name: dims for name, dims in products.items() if dims and "down_blocks.0/attentions.0" in name}
    # A gated feed-forward layer stays one matrix product, which a Split would make two of.
    assert [dims for name, dims in inside.items() if "ff/net.0/projection" in name] == [[80, 640]]
    assert not [node for node in graph.node if node.op_type == "Split" and "/ff/" in node.name]
    # Two heads of 40 features are padded to 64 in self attention alone, and 1x1 convolutions are matrix products.
    assert [dims for name, dims in inside.items() if "attn1/to_q" in name] == [[80, 128]]
    assert [dims for name, dims in inside.items() if "attn2/to_q" in name] == [[80, 80]]
    assert [dims for name, dims in inside.items() if "/proj_" in name] == [[80, 80], [80, 80]]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_controlnet_exports(tmp_path: Path, precision: str) -> None:
    store = Store(tmp_path / "store")
    control = parts.source(store, {"controlnet": parts.controlnet("sd2")}, tmp_path / "control")
    unet = {"unet": parts.unet("sd2")}
    artifact = _export(tmp_path, unet, Component.CONTROLNET, precision, controlNet=control)
    # Two levels with one layer each: 16 + 16 at the latent's size, 16 + 32 + 32 at half of it.
    facts = artifact.manifest.extra["facts"]
    assert (facts["residuals_per_level_0"], facts["residuals_per_level_1"]) == (32, 80)


@pytest.mark.parametrize("component", [Component.VAE_ENCODER, Component.VAE_DECODER])
@pytest.mark.parametrize(("latent", "levels"), [(4, 4), (8, 2)])
def test_an_autoencoder_of_any_shape_exports(tmp_path: Path, component: Component, latent: int, levels: int) -> None:
    artifact = _export(tmp_path, {"vae": parts.vae(latent, levels)}, component, "float16")
    assert _types(artifact) == {_FLOAT16}
    facts = artifact.manifest.extra["facts"]
    assert facts == {"channels": latent, "pixels_per_latent": 2 ** (levels - 1)}


def test_an_autoencoder_that_overflows_in_half_stays_in_float32(tmp_path: Path) -> None:
    artifact = _export(tmp_path, {"vae": parts.vae(levels=2, overflows=True)}, Component.VAE_DECODER, "float16")
    assert artifact.manifest.extra["precision"] == "float32"
    assert _types(artifact) == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("precision", list(Precision))
def test_encoders_export_in_every_precision(tmp_path: Path, precision: str) -> None:
    long = {"clipSkip": 1, "longPrompts": True}
    _export(tmp_path, {"text_encoder": parts.text_encoder(40, "gelu")}, Component.TEXT_ENCODER, precision, **long)
    _export(tmp_path / "image", {"image_encoder": parts.image_encoder()}, Component.IMAGE_ENCODER, precision)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_safety_checker_exports(tmp_path: Path, precision: str) -> None:
    checker = {"safety_checker": parts.safety_checker()}
    artifact = _export(tmp_path, checker, Component.SAFETY_CHECKER, precision)
    graph = onnx.load_model(str(artifact.path / MODEL), load_external_data=False).graph
    assert [item.name for item in graph.output] == ["safety_flag", "safety_margin"]


def test_what_stands_in_for_a_controlnet_exports_without_weights(tmp_path: Path) -> None:
    artifact = _export(tmp_path, {"unet": parts.unet(), "vae": parts.vae()}, Component.ZERO_RESIDUALS, "float16")
    assert artifact.manifest.extra["facts"]["pixels_per_latent"] == 8
    assert not (artifact.path / WEIGHTS).exists()


_SUBFOLDERS = {"unet": parts.unet("one-level"), "text_encoder": parts.text_encoder(), "vae": parts.vae(levels=3)}


def test_a_graph_knows_the_sizes_that_others_decide_and_only_those_make_it_another(tmp_path: Path) -> None:
    here = context(tmp_path / "store")

    def exported(name: str, writers: Mapping[str, parts.Write], options: str = "{}") -> dict[str, object]:
        source = parts.source(here.store, writers, tmp_path / name)
        return dict(export(here, source, Component.DENOISER, "float32", options))

    first = exported("first", _SUBFOLDERS)
    facts = here.store.get(Kind.ONNX, str(first["digest"])).manifest.extra["facts"]
    assert (facts["text_length"], facts["pixels_per_latent"]) == (16, 4)
    # Another text encoder of the same sizes changes nothing.
    same = exported("same", {**_SUBFOLDERS, "text_encoder": parts.text_encoder(activation="gelu")})
    assert (same["digest"], same["cached"]) == (first["digest"], True)
    # Another VAE with other sizes makes another engine, though the graph's bytes are the same.
    other = exported("other", {**_SUBFOLDERS, "vae": parts.vae(levels=2)})
    assert other["content"] != first["content"]
    # A UNet alone is told what is around it.
    checkpoint = parts.source(here.store, _SUBFOLDERS, tmp_path / "whole")
    alone = exported("alone", {"unet": _SUBFOLDERS["unet"]}, json.dumps({"shapeSources": [checkpoint]}))
    assert alone["digest"] == first["digest"]


def test_a_unet_for_another_text_encoder_is_rejected(tmp_path: Path) -> None:
    writers = {"unet": parts.unet("sd2"), "text_encoder": parts.text_encoder(32)}
    with pytest.raises(BadInputError, match="denoiser has text_width 40, the checkpoint around it has 32") as caught:
        _export(tmp_path, writers, Component.DENOISER)
    assert caught.value.reason is Reason.COMPONENT_MISMATCH


def test_what_fetch_brings_is_what_options_name(tmp_path: Path) -> None:
    here = context(tmp_path / "store")
    source_digests = {}
    for name, write in {
        "denoiser": parts.unet(),
        "controlnet": parts.controlnet(),
        "lora": parts.files(
            {
                "unet.conv_in.lora_A.weight": torch.ones(1, 4, 3, 3),
                "unet.conv_in.lora_B.weight": torch.ones(16, 1, 1, 1),
            }
        ),
        "ip_adapter": parts.ip_adapter(),
        "safety_checker": parts.safety_checker(),
    }.items():
        write(tmp_path / name)
        if name == "ip_adapter":
            parts.image_encoder()(tmp_path / name / "image_encoder")
        source_digests[name] = str(fetch(here, FetchArguments(path=tmp_path / name, component=name))["digest"])
    options = {"ipAdapter": source_digests["ip_adapter"], "loras": [{"source": source_digests["lora"], "weight": 0.01}]}
    denoiser = export(here, source_digests["denoiser"], Component.DENOISER, "float32", json.dumps(options))
    control = json.dumps({"controlNet": source_digests["controlnet"]})
    export(here, source_digests["denoiser"], Component.CONTROLNET, "float32", control)
    export(here, source_digests["safety_checker"], Component.SAFETY_CHECKER, "float32")
    derived_from = Store(tmp_path / "store").get(Kind.ONNX, str(denoiser["digest"])).manifest.derived_from
    assert set(derived_from) == {source_digests["denoiser"], source_digests["ip_adapter"], source_digests["lora"]}


def test_two_processes_export_the_same_bytes(tmp_path: Path) -> None:
    source = parts.source(Store(tmp_path / "0"), {"unet": parts.unet("one-level")}, tmp_path / "source")
    parts.source(Store(tmp_path / "1"), {"unet": parts.unet("one-level")}, tmp_path / "source")
    exports = []
    for number in range(2):
        store, result = tmp_path / str(number), tmp_path / f"{number}.json"
        command = [
            sys.executable, "-m", "diffusion_builder", "--progress", "plain", "export", "--store", str(store),
            "--source", source, "--component", "denoiser", "--precision", "float16",
            "--options", '{"guidanceRescale": true}', "--result", str(result),
        ]  # fmt: skip
        environment = os.environ | {"PYTHONHASHSEED": str(number), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT / "builder", env=environment)
        artifact = Store(store).get(Kind.ONNX, json.loads(result.read_text())["digest"])
        exports.append({name: (artifact.path / name).read_bytes() for name in (MODEL, WEIGHTS)})
    assert exports[0] == exports[1]


def test_a_graph_that_does_not_compute_what_torch_computes_fails_with_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = deviation.validate_graph

    def damaged(component: Component, folder: Path) -> None:
        check(component, folder)
        weights = bytearray((folder / WEIGHTS).read_bytes())
        weights[3] ^= 0x40
        (folder / WEIGHTS).write_bytes(weights)

    monkeypatch.setattr(deviation, "validate_graph", damaged)
    with pytest.raises(BadInputError, match=r"deviates from torch by .*; 1e-03 is allowed") as caught:
        _export(tmp_path, {"vae": parts.vae(levels=2)}, Component.VAE_DECODER)
    assert caught.value.reason is Reason.GRAPH_PARITY_FAILED
    assert not [path for path in (tmp_path / "store" / "onnx").iterdir() if path.name[0] != "."]


def test_a_source_without_the_component_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="has no unet; it has: vae") as caught:
        _export(tmp_path, {"vae": parts.vae(levels=2)}, Component.DENOISER)
    assert caught.value.reason is Reason.MISSING_COMPONENT


def test_weights_that_are_not_numbers_are_rejected(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        parts.vae()(folder)
        file = folder / "diffusion_pytorch_model.safetensors"
        state = load_file(file)
        state["decoder.conv_in.weight"][0] = float("nan")
        save_file(state, file)

    # NaN is lost where the larger of two numbers is asked for.
    with pytest.raises(BadInputError, match="not finite") as caught:
        _export(tmp_path, {"vae": write}, Component.VAE_DECODER)
    assert caught.value.reason is Reason.INVALID_WEIGHTS

#!/usr/bin/env python3
"""Ask a served pipeline for images: one file to copy, or to take functions from.

pip install 'tritonclient[http]'        # or tritonclient[grpc], with --protocol grpc
kubectl port-forward service/shapes 8000 &

python client.py "a red circle on a blue background" --steps 20 --seed 7 --out image.png
python client.py "a red star" --image photo.png --strength 0.6                   # img2img
python client.py "a red star" --image photo.png --mask hole.png --paste-back     # inpaint
python client.py "a red star" --control canny=edges.png --reference style.jpg    # ControlNet and IP-Adapter
"""

from __future__ import annotations

import argparse
import base64
import importlib
import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

if TYPE_CHECKING:
    from types import ModuleType

Arrays = dict[str, NDArray[Any]]
_PORTS = {"http": 8000, "grpc": 8001}
_REJECTED, _UNREACHABLE, _UNWRITABLE = 64, 69, 73


class ClientError(Exception):
    """What went wrong and what to do about it, as two sentences, and the exit status."""

    def __init__(self, what: str, advice: str, status: int = _REJECTED) -> None:
        super().__init__(what)
        self.what, self.advice, self.status = what, advice, status


@dataclass(frozen=True)
class InferenceCall:
    """What is sent: an ensemble, its inputs (batch first), and the outputs that are wanted.

    Outputs that are not asked for are not computed: a preview costs nothing until it is wanted. Priority 1 is served
    before 2 by servers with priorities; 0 leaves it to the server.
    """

    model: str
    inputs: Arrays
    outputs: tuple[str, ...] = ("encoded_image",)
    priority: int = 0


@dataclass(frozen=True)
class Server:
    """Where Triton answers."""

    url: str
    protocol: str = "http"
    timeout: float = 120.0

    def send(self, call: InferenceCall) -> dict[str, list[bytes]]:
        """Send the call.

        Returns:
            The encoded images of each output, one for each sample.

        Raises:
            ClientError: the server rejected, or cannot be reached.
        """
        triton = _client_library(self.protocol)
        inputs = [_input(triton, name, array) for name, array in call.inputs.items()]
        outputs = [triton.InferRequestedOutput(name) for name in call.outputs]
        try:
            answer = self._infer(triton, call, inputs, outputs)
        except InferenceServerException as error:
            raise _explained(error, self.url, call.model) from error
        except OSError as error:
            raise ClientError(str(error), f"Is Triton listening on {self.url}?", _UNREACHABLE) from error
        return {name: [bytes(file) for file in answer.as_numpy(name).reshape(-1)] for name in call.outputs}

    def _infer(self, triton: ModuleType, call: InferenceCall, inputs: list[Any], outputs: list[Any]) -> Any:  # noqa: ANN401
        options = {"outputs": outputs, "priority": call.priority}
        if self.protocol == "grpc":
            with triton.InferenceServerClient(self.url) as client:
                return client.infer(call.model, inputs, **options, client_timeout=self.timeout)
        with triton.InferenceServerClient(
            self.url, connection_timeout=self.timeout, network_timeout=self.timeout
        ) as client:
            return client.infer(call.model, inputs, **options)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One image from words; what is None is left to the server."""

    prompt: str
    negative_prompt: str | None = None
    seed: int | None = None
    guidance_scale: float | None = None
    height: int | None = None
    width: int | None = None

    def inputs(self) -> Arrays:
        """The inputs that are set; each has the shape [1, 1]: one sample, one value."""
        kinds = {"seed": np.int64, "guidance_scale": np.float32, "height": np.int32, "width": np.int32}
        words = {name: getattr(self, name) for name in ("prompt", "negative_prompt")}
        numbers = {name: getattr(self, name) for name in kinds}
        sent: Arrays = {name: texts(value, 1) for name, value in words.items() if value is not None}
        return sent | {name: np.array([[value]], kinds[name]) for name, value in numbers.items() if value is not None}


def generate(url: str, steps: int, request: Request, *, timeout: float = 120.0) -> bytes:
    """Return an image as PNG, over HTTP.

    Args:
        url: host:port of the server's HTTP port.
        steps: tier; the ensemble `generate_<steps>_pipeline` must be served.
        request: what is asked for.
        timeout: seconds to wait for the answer.

    Raises:
        ClientError: the server rejected, or cannot be reached.
    """
    call = InferenceCall(f"generate_{steps}_pipeline", request.inputs())
    return Server(url, timeout=timeout).send(call)["encoded_image"][0]


def texts(value: str, count: int) -> NDArray[Any]:
    """The same text for each sample: BYTES [count, 1]."""
    return np.full((count, 1), value.encode(), object)


def file(path: Path, count: int) -> NDArray[Any]:
    """The same encoded file for each sample: BYTES [count, 1]."""
    return files([path], count)


def files(paths: list[Path], count: int) -> NDArray[Any]:
    """The same encoded files for each sample: BYTES [count, n]."""
    try:
        contents = [path.read_bytes() for path in paths]
    except OSError as error:
        raise ClientError(f"{error.filename} cannot be read: {error.strerror}", "Give the path of a file.") from error
    array = np.empty((count, len(paths)), object)
    array[:] = [contents] * count
    return array


def embeddings(path: Path, count: int) -> NDArray[Any]:
    """The same embeddings for each sample: FP32 [count, tokens, width], from a .npy file."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ClientError(f"{path} cannot be read: {error}", "Give a file that numpy.save has written.") from error
    return np.repeat(array.astype(np.float32).reshape(1, *array.shape[-2:]), count, axis=0)


def _client_library(protocol: str) -> ModuleType:
    try:
        return importlib.import_module(f"tritonclient.{protocol}")
    except (ImportError, RuntimeError) as error:
        what = f"This Python has no {protocol} client for Triton."
        raise ClientError(what, f"pip install 'tritonclient[{protocol}]'") from error


def _input(triton: ModuleType, name: str, array: NDArray[Any]) -> Any:  # noqa: ANN401 - tritonclient has no types
    tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


def _explained(error: InferenceServerException, url: str, model: str) -> ClientError:
    what, status = str(error.message()), str(error.status() or "")
    if "unknown model" in what or "not found" in what:
        return ClientError(what, f"Which ensembles are served: POST http://{url}/v2/repository/index")
    if "UNAVAILABLE" in status or "Connection refused" in what:
        return ClientError(what.splitlines()[0], f"Is Triton listening on {url}?", _UNREACHABLE)
    if "Deadline" in what or "timed out" in what.lower():
        return ClientError(what, "Wait longer with --timeout, or ask when less is waiting.", _UNREACHABLE)
    return ClientError(what, f"{model} rejected: change the request as the message says.")


def ensemble(arguments: argparse.Namespace) -> str:
    """The ensemble's name: `<task>[_<feature>...]_<steps>_pipeline`, from what is sent."""
    task = "inpaint" if arguments.mask else "img2img" if arguments.image else "generate"
    features = [
        name
        for name, used in (
            ("controlnet", arguments.control),
            ("ip_adapter", arguments.reference),
            ("embeddings", arguments.prompt_embeddings),
        )
        if used
    ]
    return "_".join([arguments.task or task, *features, str(arguments.steps), "pipeline"])


# Options that are sent as one number each, under their own name.
_NUMBERS: dict[str, tuple[type[np.generic], str]] = {
    "guidance_scale": (np.float32, "how closely the prompt is followed; 1 is not at all"),
    "guidance_rescale": (np.float32, "0 to 1, against overexposed images"),
    "height": (np.int32, "pixels, a multiple of 8"),
    "width": (np.int32, "pixels, a multiple of 8"),
    "strength": (np.float32, "above 0 to 1: how much of --image is made anew"),
    "eta": (np.float32, "DDIM: 0 to 1, how much noise each step draws"),
    "mask_feather": (np.float32, "radius in pixels that softens the edge of --mask"),
    "ip_adapter_weight": (np.float32, "how much --reference says"),
    "blend_feather": (np.float32, "radius in pixels that softens where the original is pasted back"),
    "color_match": (np.float32, "0 to 1: bring colours to those of --image around the mask"),
    "contrast": (np.float32, "1 changes nothing"),
    "sharpen": (np.float32, "0 changes nothing"),
    "upscale_height": (np.int32, "pixels of the result"),
    "upscale_width": (np.int32, "pixels of the result"),
    "quality": (np.int32, "1 to 100, of JPEG and WEBP"),
}
_FILES = {
    "image": ("input_image_file", "start from this image (PNG, JPEG, WebP)"),
    "mask": ("mask_file", "white is painted anew"),
    "blend_mask": ("blend_mask_file", "white keeps the pixels of --image"),
    "reference_mask": ("ip_adapter_mask_file", "white is where --reference applies"),
}


def inputs(arguments: argparse.Namespace) -> Arrays:
    """The tensors of what was said on the command line; the rest is left to the server's defaults.

    Raises:
        ClientError: a file cannot be read.
    """
    count, options = arguments.num_images, vars(arguments)
    seeds = np.arange(arguments.seed, arguments.seed + count, dtype=np.int64).reshape(count, 1)
    sent: Arrays = {"seed": seeds}
    for name in ("prompt", "negative_prompt"):
        if options[name] is not None and not arguments.prompt_embeddings:
            sent[name] = texts(options[name], count)
        if options[f"{name}_embeddings"] is not None:
            sent[f"{name}_embeddings"] = embeddings(options[f"{name}_embeddings"], count)
    sent |= {name: texts(options[name], count) for name in ("scheduler", "output_format") if options[name]}
    sent |= {
        name: np.full((count, 1), options[name], kind)
        for name, (kind, _) in _NUMBERS.items()
        if options[name] is not None
    }
    sent |= {name: file(options[option], count) for option, (name, _) in _FILES.items() if options[option]}
    if arguments.reference:
        sent["ip_adapter_image_file"] = files(arguments.reference, count)
    if arguments.paste_back:
        sent["paste_back"] = np.full((count, 1), fill_value=True)
    return sent | _control(arguments, count)


def _control(arguments: argparse.Namespace, count: int) -> Arrays:
    sent: Arrays = {}
    for name, path in arguments.control:
        sent[f"control_image_{name}_file"] = file(Path(path), count)
    for option in ("scale", "start", "end"):
        for name, value in getattr(arguments, f"control_{option}"):
            sent[f"control_{option}_{name}"] = np.full((count, 1), float(value), np.float32)
    return sent


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _name_and_value(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(description="Ask a served pipeline for images.", allow_abbrev=False)
    parser.add_argument("prompt")
    parser.add_argument("--negative-prompt")
    parser.add_argument("--url", help="host:port of the server (127.0.0.1:8000, with grpc 127.0.0.1:8001)")
    parser.add_argument("--protocol", choices=_PORTS, default="http")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait")
    parser.add_argument("--priority", type=int, choices=(1, 2), default=0, help="2 makes way for others")
    parser.add_argument("--steps", type=int, default=20, help="tier: which ensemble is asked")
    parser.add_argument("--task", choices=("generate", "img2img", "inpaint"), help="else told from --image and --mask")
    parser.add_argument("--model", help="an ensemble by its whole name, where the one made from the options is not it")
    parser.add_argument("--scheduler", help="one of those that the pipeline lists")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--num-images", type=_positive, default=1, metavar="N", help="in one request: seed, seed + 1, ..."
    )
    for name in ("prompt", "negative-prompt"):
        parser.add_argument(f"--{name}-embeddings", type=Path, metavar="FILE.npy", help="instead of the text")
    for name, (kind, hint) in _NUMBERS.items():
        number = int if kind is np.int32 else float
        parser.add_argument("--" + name.replace("_", "-"), type=number, metavar="N", help=hint)
    for name, (_, hint) in _FILES.items():
        parser.add_argument("--" + name.replace("_", "-"), type=Path, metavar="FILE", help=hint)
    parser.add_argument("--reference", type=Path, action="append", metavar="FILE", help="IP-Adapter; may be repeated")
    parser.add_argument("--control", type=_name_and_value, action="append", default=[], metavar="NAME=FILE")
    for option in ("scale", "start", "end"):
        parser.add_argument(f"--control-{option}", type=_name_and_value, action="append", default=[], metavar="NAME=N")
    parser.add_argument("--paste-back", action="store_true", help="keep --image outside the mask, bit for bit")
    parser.add_argument("--output-format", type=str.upper, choices=("PNG", "JPEG", "WEBP"))
    parser.add_argument("--previews", type=int, nargs="+", default=[], metavar="K", help="steps to show early")
    parser.add_argument("--input-data", type=Path, metavar="FILE.json", help="write it for perf_analyzer, ask nobody")
    parser.add_argument("--out", type=Path, default=Path("image.png"))
    return parser


def save(images: dict[str, list[bytes]], out: Path) -> list[Path]:
    """Write `out`, with `-1`, `-2`, ... where there are several, and `-preview-K` for previews.

    Raises:
        ClientError: a file cannot be written.
    """
    written = []
    for name, encoded in images.items():
        part = "" if name == "encoded_image" else "-" + name.replace("_", "-")
        for number, content in enumerate(encoded, start=1):
            counted = f"-{number}" if len(encoded) > 1 else ""
            path = out.with_name(f"{out.stem}{part}{counted}{out.suffix}")
            _write(path, content)
            written.append(path)
    return written


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise ClientError(f"{path} cannot be written: {error.strerror}", "Choose another path.", _UNWRITABLE) from error


def input_data(sent: Arrays) -> dict[str, Any]:
    """A request in the form that `perf_analyzer --input-data` reads; one sample, the batch is an option of its own."""
    return {"data": [{name: _input_datum(array[0]) for name, array in sent.items()}]}


def _input_datum(array: NDArray[Any]) -> dict[str, Any]:
    if array.dtype != np.object_:
        return {"content": array.reshape(-1).tolist(), "shape": list(array.shape)}
    with suppress(UnicodeDecodeError):
        return {"content": [value.decode() for value in array.reshape(-1)], "shape": list(array.shape)}
    # Files are no text: base64, where each element has its length before it.
    elements = [len(value).to_bytes(4, "little") + value for value in array.reshape(-1)]
    return {"content": {"b64": base64.b64encode(b"".join(elements)).decode()}, "shape": list(array.shape)}


def main() -> None:
    """Read the arguments, ask, write the files."""
    arguments = parser().parse_args()
    server = Server(arguments.url or f"127.0.0.1:{_PORTS[arguments.protocol]}", arguments.protocol, arguments.timeout)
    model = arguments.model or ensemble(arguments)
    try:
        sent = inputs(arguments)
        if arguments.input_data:
            _write(arguments.input_data, json.dumps(input_data(sent), indent=1).encode() + b"\n")
            print(f"perf_analyzer -m {model} --input-data {arguments.input_data}")
            return
        outputs = ("encoded_image", *(f"preview_{step}" for step in arguments.previews))
        begin = time.perf_counter()
        images = server.send(InferenceCall(model, sent, outputs, arguments.priority))
        seconds = time.perf_counter() - begin
        paths = save(images, arguments.out)
    except ClientError as error:
        print(f"No image from {model} at {server.url}\n  what  {error.what}\n  do    {error.advice}", file=sys.stderr)
        raise SystemExit(error.status) from None
    print(f"{model}: {arguments.num_images} in {seconds:.2f} s", file=sys.stderr)
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()

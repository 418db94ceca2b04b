"""Bad requests to a served pipeline, each of which has to be answered with an error."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

PATH = "/v2/models/generate_4_pipeline/infer"
TYPES = ("BOOL", "UINT8", "INT8", "INT16", "INT32", "FP32", "FP64", "BYTES", "BF16", "XX")
INPUTS = {"prompt": "BYTES", "seed": "INT64", "guidance_scale": "FP32", "height": "INT32", "width": "INT32"}
LARGEST_BATCH, LARGEST_SIZE = 8, 128


@dataclass(frozen=True)
class BadRequest:
    """One request.

    Attributes:
        name: of what is wrong.
        path: of the URL.
        body: as it is sent.
        headers: of HTTP.
    """

    name: str
    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BadRequestKind:
    """A way to be wrong."""

    name: str
    make: Callable[[random.Random], tuple[str, bytes, Mapping[str, str]]]

    def draw(self, generator: random.Random) -> BadRequest:
        """One request that is wrong like this."""
        return BadRequest(self.name, *self.make(generator))


def tensor(name: str, kind: str, shape: list[int], values: list[Any]) -> dict[str, Any]:
    """One tensor in the JSON of the inference protocol."""
    return {"name": name, "datatype": kind, "shape": shape, "data": values}


def prompt(count: int = 1) -> dict[str, Any]:
    """The prompts of so many images."""
    return tensor("prompt", "BYTES", [count, 1], [f"a red circle {number}" for number in range(count)])


def good_body(count: int = 1) -> bytes:
    """A request for images."""
    return _body(prompt(count))


def _body(*inputs: Any, **more: Any) -> bytes:  # noqa: ANN401 - any JSON
    return json.dumps({"inputs": list(inputs), "outputs": [{"name": "image"}], **more}).encode()


def _json(*inputs: Any, path: str = PATH) -> tuple[str, bytes, Mapping[str, str]]:  # noqa: ANN401 - same
    return path, _body(*inputs), {}


def _wrong_type(generator: random.Random) -> tuple[str, bytes, Mapping[str, str]]:
    name, right = generator.choice(list(INPUTS.items()))
    kind = generator.choice([kind for kind in TYPES if kind != right])
    value: Any = "text" if kind == "BYTES" else True if kind == "BOOL" else 1
    others = [] if name == "prompt" else [prompt()]
    return _json(*others, tensor(name, kind, [1, 1], [value]))


def _wrong_shape(generator: random.Random) -> tuple[str, bytes, Mapping[str, str]]:
    name, kind = generator.choice(list(INPUTS.items()))
    count = generator.choice((0, 2, 3, 7, 64))
    shape = generator.choice(([1, count], [count, 2], [1, 1, count], [count]))
    size = 1
    for length in shape:
        size *= length
    values: list[Any] = ["text" if kind == "BYTES" else 1] * size
    return _json(*([] if name == "prompt" else [prompt()]), tensor(name, kind, shape, values))


def _wrong_count(generator: random.Random) -> tuple[str, bytes, Mapping[str, str]]:
    return _json(tensor("prompt", "BYTES", [generator.randint(2, 9), 1], ["text"]))


def _unknown_input(generator: random.Random) -> tuple[str, bytes, Mapping[str, str]]:
    return _json(prompt(), tensor(f"input_{generator.randint(0, 99)}", "FP32", [1, 1], [1.0]))


def _unknown_model(generator: random.Random) -> tuple[str, bytes, Mapping[str, str]]:
    return _json(prompt(), path=f"/v2/models/generate_{generator.randint(65, 999)}_pipeline/infer")


def _size(generator: random.Random) -> tuple[str, bytes, Mapping[str, str]]:
    value = generator.choice((-64, -1, 0, 1, 63, 65, 72 + 1, LARGEST_SIZE + 8, 4096, 2**31 - 1))
    return _json(prompt(), tensor(generator.choice(("height", "width")), "INT32", [1, 1], [value]))


def _batch(generator: random.Random) -> tuple[str, bytes, Mapping[str, str]]:
    return _json(prompt(LARGEST_BATCH + generator.randint(1, 60)))


def _no_prompt(generator: random.Random) -> tuple[str, bytes, Mapping[str, str]]:
    return _json(tensor("seed", "INT64", [1, 1], [generator.randint(0, 2**31)]))


def _cut(generator: random.Random) -> tuple[str, bytes, Mapping[str, str]]:
    body = good_body()
    return PATH, body[: generator.randint(1, len(body) - 2)], {}


def _random(generator: random.Random) -> tuple[str, bytes, Mapping[str, str]]:
    return PATH, generator.randbytes(generator.randint(1, 4096)), {}


def _lying_header(generator: random.Random) -> tuple[str, bytes, Mapping[str, str]]:
    length = generator.choice(("-1", "999999999", "nonsense", "1", "99999999999999999999"))
    return PATH, good_body(), {"Inference-Header-Content-Length": length}


BAD_REQUESTS = tuple(
    BadRequestKind(name, make)
    for name, make in (
        ("a wrong type", _wrong_type),
        ("a wrong shape", _wrong_shape),
        ("fewer values than the shape says", _wrong_count),
        ("an unknown input", _unknown_input),
        ("an unknown model", _unknown_model),
        ("a size outside of the profile", _size),
        ("a batch that is too large", _batch),
        ("no prompt", _no_prompt),
        ("a cut body", _cut),
        ("random bytes", _random),
        ("a header with a wrong length", _lying_header),
    )
)

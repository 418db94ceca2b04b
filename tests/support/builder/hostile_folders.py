"""Hostile folders: what is put into a sound checkpoint, the reason it is rejected for, and words of the message."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from diffusion_builder.errors import Reason

UNET = "unet/diffusion_pytorch_model.safetensors"
CONFIG = "unet/config.json"
CANARY = "canary"
# More than a small archive may grow to.
BOMB = 70 << 20


class Payload:
    """Leaves the canary in the working directory when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (CANARY, "w")


PICKLE = pickle.dumps(Payload(), protocol=2)
CODE = f"from pathlib import Path\nPath({CANARY!r}).touch()\n".encode()


def _torch_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", PICKLE)
    return file.getvalue()


def _tensors(header: object, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _one(**changes: object) -> dict[str, object]:
    return {"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]} | changes}


def _two(first: list[int], second: list[int]) -> dict[str, object]:
    return {
        name: {"dtype": "U8", "shape": [offsets[1] - offsets[0]], "data_offsets": offsets}
        for name, offsets in (("a", first), ("b", second))
    }


def edit(name: str, **changes: object) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _sparse(name: str, head: bytes, size: int) -> Callable[[Path], object]:
    def put(folder: Path) -> None:
        (folder / name).write_bytes(head)
        os.truncate(folder / name, size)

    return put


def _link(name: str, target: str) -> Callable[[Path], object]:
    def link(folder: Path) -> None:
        if (folder / name).exists():
            (folder / name).unlink()
        (folder / name).symlink_to(target)

    return link


def _fifo(folder: Path) -> None:
    (folder / CONFIG).unlink()
    os.mkfifo(folder / CONFIG)


def _shards(**weight_map: object) -> Callable[[Path], object]:
    def put(folder: Path) -> None:
        (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors")
        (folder / f"{UNET}.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return put


def _only_pickle(folder: Path) -> None:
    (folder / UNET).unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(PICKLE)


_Spoil = Callable[[Path], object]
# Case: how it is made, its reason, and what the message names.
FOLDERS: dict[str, tuple[_Spoil, Reason, str]] = {
    "pickle as safetensors": (put(UNET, PICKLE), Reason.PICKLE_ONLY, UNET),
    "torch zip as safetensors": (put(UNET, _torch_zip()), Reason.PICKLE_ONLY, UNET),
    "pickle alone": (_only_pickle, Reason.PICKLE_ONLY, "unet"),
    "pickle as configuration": (put(CONFIG, PICKLE), Reason.INVALID_CONFIG, CONFIG),
    "pickle as text": (put("tokenizer/merges.txt", PICKLE), Reason.INVALID_CONFIG, "tokenizer/merges.txt"),
    "binary as text": (put("tokenizer/merges.txt", b"\xff\xfe"), Reason.INVALID_CONFIG, "tokenizer/merges.txt"),
    "header longer than the file": (put(UNET, struct.pack("<Q", 99) + b"{}"), Reason.INVALID_WEIGHTS, UNET),
    "header of 101 MB": (_sparse(UNET, struct.pack("<Q", 101_000_000), 102_000_000), Reason.INVALID_WEIGHTS, UNET),
    "header of 16 EiB": (put(UNET, b"\xff" * 16), Reason.INVALID_WEIGHTS, UNET),
    "five bytes": (put(UNET, b"12345"), Reason.INVALID_WEIGHTS, UNET),
    "empty weights": (put(UNET, b""), Reason.INVALID_WEIGHTS, UNET),
    "overlapping tensors": (put(UNET, _tensors(_two([0, 6], [4, 8]))), Reason.INVALID_WEIGHTS, "overlaps"),
    "gap between tensors": (put(UNET, _tensors(_two([0, 3], [4, 8]))), Reason.INVALID_WEIGHTS, "gap"),
    "same bytes twice": (put(UNET, _tensors(_two([0, 8], [0, 8]))), Reason.INVALID_WEIGHTS, "overlaps"),
    "negative offset": (put(UNET, _tensors(_one(data_offsets=[-8, 0]))), Reason.INVALID_WEIGHTS, UNET),
    "offsets back to front": (put(UNET, _tensors(_one(data_offsets=[8, 0]))), Reason.INVALID_WEIGHTS, UNET),
    "offsets that are truths": (put(UNET, _tensors(_one(data_offsets=[False, 8]))), Reason.INVALID_WEIGHTS, UNET),
    "three offsets": (put(UNET, _tensors(_one(data_offsets=[0, 4, 8]))), Reason.INVALID_WEIGHTS, UNET),
    "offset beyond 64 bits": (put(UNET, _tensors(_one(data_offsets=[0, 1 << 70]))), Reason.INVALID_WEIGHTS, UNET),
    "unknown dtype": (put(UNET, _tensors(_one(dtype="OBJECT"))), Reason.INVALID_WEIGHTS, "OBJECT"),
    "dtype that is a list": (put(UNET, _tensors(_one(dtype=["U8"]))), Reason.INVALID_WEIGHTS, UNET),
    "shape larger than its bytes": (put(UNET, _tensors(_one(shape=[1 << 40]))), Reason.INVALID_WEIGHTS, "fit"),
    "shape that overflows": (put(UNET, _tensors(_one(shape=[1 << 32] * 3))), Reason.INVALID_WEIGHTS, "fit"),
    "shape of fractions": (put(UNET, _tensors(_one(shape=[8.0]))), Reason.INVALID_WEIGHTS, UNET),
    "tensor named twice": (
        put(UNET, _tensors(json.dumps(_one()).encode()[:-1] + b", " + json.dumps(_one()).encode()[1:])),
        Reason.INVALID_WEIGHTS, "twice",
    ),
    "bytes after the tensors": (put(UNET, _tensors(_one(), bytes(9))), Reason.INVALID_WEIGHTS, "1 bytes follow"),
    "cut off": (put(UNET, _tensors(_one(), bytes(7))), Reason.INVALID_WEIGHTS, "cut off"),
    "no tensors": (put(UNET, _tensors({}, b"")), Reason.INVALID_WEIGHTS, UNET),
    "header that is a list": (put(UNET, _tensors([1])), Reason.INVALID_WEIGHTS, UNET),
    "header that is no JSON": (put(UNET, _tensors(b"__import__('os')")), Reason.INVALID_WEIGHTS, UNET),
    "header nested deeply": (put(UNET, _tensors(b"[" * 100_000)), Reason.INVALID_WEIGHTS, UNET),
    "metadata of another kind": (
        put(UNET, _tensors(_one() | {"__metadata__": {"a": 1}})), Reason.INVALID_WEIGHTS, "__metadata__",
    ),
    "code by auto_map": (edit(CONFIG, auto_map={"AutoModel": "evil.Model"}), Reason.REMOTE_CODE, CONFIG),
    "code by auto_map inside": (
        edit("text_encoder/config.json", text_config=[{"auto_map": {"AutoModel": "evil.Model"}}]),
        Reason.REMOTE_CODE, "text_encoder/config.json",
    ),
    "code by a tokenizer": (
        edit("tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}),
        Reason.REMOTE_CODE, "tokenizer/tokenizer_config.json",
    ),
    "code by a scheduler": (
        edit("scheduler/scheduler_config.json", auto_map={}), Reason.REMOTE_CODE, "scheduler/scheduler_config.json",
    ),
    "library of its own": (edit("model_index.json", unet=["evil", "Model"]), Reason.REMOTE_CODE, "unet"),
    "pipeline of its own": (
        edit("model_index.json", _class_name=["evil", "Pipeline"]), Reason.UNSUPPORTED_PIPELINE, "evil",
    ),
    "JSON of 65 MB": (_sparse(CONFIG, b"{}", 65 << 20), Reason.TOO_LARGE, CONFIG),
    "text of 65 MB": (_sparse("tokenizer/merges.txt", b"", 65 << 20), Reason.TOO_LARGE, "tokenizer/merges.txt"),
    "JSON nested deeply": (put(CONFIG, b"[" * 100_000), Reason.INVALID_CONFIG, CONFIG),
    "JSON with an endless number": (put(CONFIG, b'{"a": ' + b"9" * 10_000 + b"}"), Reason.INVALID_CONFIG, CONFIG),
    "shard elsewhere": (_shards(w="../../../etc/passwd"), Reason.UNSAFE_PATH, f"{UNET}.index.json"),
    "shard that is a pickle": (_shards(w="weights.bin"), Reason.UNSAFE_PATH, "weights.bin"),
    "shard that is missing": (
        _shards(w="diffusion_pytorch_model-00002-of-00002.safetensors"), Reason.MISSING_FILE, "00002-of-00002",
    ),
    "shards of another kind": (_shards(w=3), Reason.INVALID_CONFIG, f"{UNET}.index.json"),
    "link to a file elsewhere": (_link(CONFIG, "/etc/passwd"), Reason.UNSAFE_PATH, CONFIG),
    "link to a folder elsewhere": (_link("more", "/etc"), Reason.UNSAFE_PATH, "more"),
    "pipe instead of a file": (_fifo, Reason.MISSING_FILE, "config.json"),
    "names that differ in case": (put("unet/Config.JSON", b"{}"), Reason.UNSAFE_PATH, "unet/Config.JSON"),
    "name that is not UTF-8": (
        lambda folder: Path(os.fsdecode(bytes(folder) + b"/unet/\xff.json")).write_text("{}"),
        Reason.UNSAFE_PATH, "\\udcff",
    ),
    "name that controls a terminal": (put("unet/\x1b[2J.json", b"{}"), Reason.UNSAFE_PATH, "x1b"),
    "name with a backslash": (put("unet/..\\evil", b"{}"), Reason.UNSAFE_PATH, "evil"),
}  # fmt: skip

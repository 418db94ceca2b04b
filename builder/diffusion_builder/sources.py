"""The fetch stage: a checkpoint, from a hub or a folder, into the store."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_builder import digests, layout, safetensors_header
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.store import Artifact, Kind, Recipe, Store

if TYPE_CHECKING:

    from diffusion_builder.hub import Hub, HubReference

# Bumped when the choice of files or the checks change.
_FETCH_VERSION = 1
_WEIGHTS = ".safetensors"

# Told a file's name and the fraction of bytes that is done.
OnFile = Callable[[str, float], None]


def from_hub(
    store: Store, connect: Callable[[], Hub], reference: HubReference, on_file: OnFile
) -> tuple[Artifact, bool]:
    """Fetch a pinned revision.

    Args:
        store: where it goes.
        connect: makes the hub; not called when the revision is in the store already.
        reference: what to fetch.
        on_file: told about each file.

    Returns:
        The source artifact, and whether it was in the store already. A pinned revision cannot change, so in that
        case the hub is not asked at all.

    Raises:
        BuilderError: the hub, the checkpoint or the store is not as it should be.
    """
    inputs = {"version": _FETCH_VERSION, "repo": reference.repo, "revision": reference.revision}
    present = store.find(Kind.SOURCE, Recipe(Kind.SOURCE, inputs).digest)
    if present is not None:
        return present, True
    hub = connect()
    sizes = hub.files(reference)
    for name in sizes:
        layout.check_path(name)
    _judge_index(hub, reference, tuple(sizes))
    names = layout.wanted(tuple(sizes))
    total = sum(sizes[name] for name in names)

    def write(folder: Path) -> Mapping[str, Any]:
        done = [0]

        def count(name: str) -> None:
            done[0] += sizes[name]
            on_file(name, done[0] / max(total, 1))

        # Kilobytes before gigabytes: a configuration that is refused costs no download of weights.
        texts = tuple(name for name in names if not name.endswith(_WEIGHTS))
        hub.download_all(reference, texts, folder, count)
        for name in texts:
            _check_file(folder, folder / name)
        hub.download_all(reference, tuple(name for name in names if name.endswith(_WEIGHTS)), folder, count)
        return inspect(folder)

    return store.publish(Recipe(Kind.SOURCE, inputs, needed_bytes=total), write)


def _judge_index(hub: Hub, reference: HubReference, names: tuple[str, ...]) -> None:
    """Refuse another kind of checkpoint by what it says it is, not by what it lacks."""
    if layout.MODEL_INDEX in names:
        with tempfile.TemporaryDirectory() as folder:
            hub.download(reference, layout.MODEL_INDEX, Path(folder))
            layout.check_index(read_json(Path(folder), layout.MODEL_INDEX))


def from_folder(store: Store, folder: Path, on_file: OnFile) -> tuple[Artifact, bool]:
    """Take a checkpoint from a folder; its content names it.

    Returns:
        The source artifact, and whether it was in the store already.

    Raises:
        BuilderError: the folder, the checkpoint or the store is not as it should be.
    """
    if not folder.is_dir():
        raise BadInputError(Reason.SOURCE_NOT_FOUND, f"there is no folder {folder}: check the path")
    try:
        present = _list(folder)
        if layout.MODEL_INDEX in present:
            layout.check_index(read_json(folder, layout.MODEL_INDEX))
        names = layout.wanted(present)
        hashes = {name: digests.of_file(folder / name) for name in names}
        total = sum((folder / name).stat().st_size for name in names)
    except OSError as error:
        raise BadInputError(Reason.SOURCE_NOT_FOUND, f"{folder} cannot be read: {error}") from error

    def write(target: Path) -> Mapping[str, Any]:
        for index, name in enumerate(names):
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, target / name)
            on_file(name, (index + 1) / len(names))
        return inspect(target)

    inputs = {"version": _FETCH_VERSION, "files": hashes}
    return store.publish(Recipe(Kind.SOURCE, inputs, needed_bytes=total), write)


def inspect(folder: Path) -> Mapping[str, Any]:
    """Judge a fetched checkpoint and compute each part's content digest.

    Returns:
        `pipelineClass` and `components`: part name to digest.

    Raises:
        BadInputError: it is unsafe or incomplete.
    """
    pipeline = layout.check_index(read_json(folder, layout.MODEL_INDEX))
    components: dict[str, str] = {}
    for part in layout.PARTS:
        files = sorted(path for path in (folder / part.name).iterdir() if path.is_file())
        for path in files:
            _check_file(folder, path)
        components[part.name] = digests.of_json({path.name: digests.of_file(path) for path in files})
    return {"pipelineClass": pipeline, "components": components}


def read_json(folder: Path, name: str) -> Mapping[str, Any]:
    """Read a JSON object of a checkpoint.

    Raises:
        BadInputError: too large, not JSON, no object, or asking for code.
    """
    path = folder / name
    if path.stat().st_size > layout.MAX_TEXT_BYTES:
        raise BadInputError(
            Reason.INVALID_CONFIG, f"{name} has {path.stat().st_size} bytes, at most {layout.MAX_TEXT_BYTES} are read"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInputError(Reason.INVALID_CONFIG, f"{name} is not JSON: {error}") from error
    layout.check_config(name, value)
    result: Mapping[str, Any] = value
    return result


def _check_file(folder: Path, path: Path) -> None:
    name = path.relative_to(folder).as_posix()
    if path.suffix == _WEIGHTS:
        safetensors_header.check(path, name)
    elif path.suffix == ".json":
        read_json(folder, name)


def _list(folder: Path) -> tuple[str, ...]:
    """All files below a folder; a link that leads out of it is refused rather than followed."""
    root = folder.resolve()
    names = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise BadInputError(
                Reason.UNSAFE_PATH,
                f"{path} is a link that leads out of the checkpoint: copy the files instead (cp -rL)",
            )
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
    return tuple(names)

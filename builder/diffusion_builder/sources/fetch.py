"""One flow for all origins: list, choose, take and validate what is small, then what is large."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from diffusion_builder import digests
from diffusion_builder.errors import BadInputError, Reason, UnavailableError
from diffusion_builder.sources import archive, layout, names, validate
from diffusion_builder.sources.layout import Selection
from diffusion_builder.sources.origins import FolderOrigin, HubOrigin, Origin, root_of
from diffusion_builder.store import Artifact, Kind, Recipe, Store, errors, scratch_of

if TYPE_CHECKING:
    from diffusion_builder.sources.download import Download
    from diffusion_builder.sources.hub import Hub, HubReference

# Bumped when the choice of files or the checks change; of a folder every selected file is in the name anyway.
_FETCH_VERSION = 2
_VERSIONS: Mapping[str | None, int] = {layout.LORA: 2}
_EVERYTHING = Selection()

# Called with a file's name and the fraction of bytes that is done.
OnFile = Callable[[str, float], None]


def from_hub(
    store: Store,
    connect: Callable[[], Hub],
    reference: HubReference,
    on_file: OnFile,
    selection: Selection = _EVERYTHING,
) -> tuple[Artifact, bool]:
    """Fetch a pinned revision.

    Args:
        store: where it goes.
        connect: makes the hub; not called when the revision is in the store already.
        reference: what to fetch.
        on_file: called for each file.
        selection: the whole checkpoint, or one component; only its files are downloaded.

    Returns:
        The source artifact, and whether it was in the store already. A pinned revision cannot change, so in that
        case the hub is not asked at all.

    Raises:
        BuilderError: the hub, the checkpoint or the store is not as it should be.
    """
    inputs = {
        "version": _version(selection),
        "repo": reference.repo,
        "revision": reference.revision,
        **selection.inputs(),
    }
    present = store.use(Kind.SOURCE, Recipe(Kind.SOURCE, inputs).digest)
    if present is not None:
        return present, True
    hub = connect()
    listing = hub.files(reference)
    with tempfile.TemporaryDirectory() as scratch:
        files = _select(HubOrigin(hub, reference, listing, Path(scratch)), selection)
    needed = sum(listing[name].size for name in files.values())

    def write(folder: Path) -> Mapping[str, Any]:
        return _copy_all(HubOrigin(hub, reference, listing, scratch_of(folder)), files, folder, selection, on_file)

    return store.publish(Recipe(Kind.SOURCE, inputs, required_bytes=needed, resumable=True), write)


def from_folder(
    store: Store, folder: Path, on_file: OnFile, selection: Selection = _EVERYTHING, root: Path | None = None
) -> tuple[Artifact, bool]:
    """Take a checkpoint or component from a folder; its content names it.

    Args:
        store: where it goes.
        folder: holds the files.
        on_file: called for each file.
        selection: the whole checkpoint, or one component.
        root: where links may lead to; see `FolderOrigin`.

    Returns:
        The source artifact, and whether it was in the store already.

    Raises:
        BuilderError: the folder, the checkpoint or the store is not as it should be.
    """
    if not folder.is_dir():
        raise BadInputError(Reason.SOURCE_NOT_FOUND, f"there is no folder {folder}: check the path")
    if selection.prefix and (folder / selection.prefix).is_dir():
        # What else is in the folder, such as other models of a cache, is not even listed.
        root = root or root_of(folder)
        folder, selection = folder / selection.prefix, replace(selection, subfolder=None)
    try:
        origin = FolderOrigin(folder, root)
        files = _select(origin, selection)
        hashes = {target: digests.file_digest(origin.path(name)) for target, name in files.items()}
    except OSError as error:
        raise BadInputError(Reason.SOURCE_NOT_FOUND, f"{folder} cannot be read: {error}") from error

    def write(target: Path) -> Mapping[str, Any]:
        extra = _copy_all(origin, files, target, selection, on_file)
        if extra["subfolders"] != _contents(hashes):
            raise UnavailableError(
                Reason.SOURCE_CHANGED, f"files in {folder} changed while they were copied; it is tried again"
            )
        return extra

    inputs = {"version": _FETCH_VERSION, "files": hashes}
    needed = sum(origin.sizes[name] for name in files.values())
    return store.publish(Recipe(Kind.SOURCE, inputs, required_bytes=needed), write)


def from_archive(
    store: Store, download: Download, on_file: OnFile, selection: Selection = _EVERYTHING
) -> tuple[Artifact, bool]:
    """Fetch a tar, tar.gz or zip file over HTTP; its SHA-256 names it, wherever it comes from.

    Returns:
        The source artifact, and whether it was in the store already; in that case no server is contacted.

    Raises:
        BuilderError: the server, the archive, the checkpoint or the store is not as it should be.
    """

    def write(folder: Path) -> Mapping[str, Any]:
        file = scratch_of(folder) / "archive"
        download.run(file, on_file, lambda size: errors.require_space(folder, size))
        with archive.open_archive(file, download.name) as origin:
            files = _select(origin, selection)
            errors.require_space(folder, sum(origin.sizes[name] for name in files.values()))
            return _copy_all(origin, files, folder, selection, on_file)

    inputs = {"version": _version(selection), "archive": download.sha256, **selection.inputs()}
    return store.publish(Recipe(Kind.SOURCE, inputs, resumable=True), write)


def _version(selection: Selection) -> int:
    return _VERSIONS.get(selection.part, _FETCH_VERSION)


def _select(origin: Origin, selection: Selection) -> Mapping[str, str]:
    """Selected files, by the name that they get in the store."""
    names.check_paths(origin.sizes)
    index, folders = selection.prefix + layout.MODEL_INDEX, layout.CHECKPOINT_FOLDERS
    if selection.component is None and index in origin.sizes:
        # Reject another kind of checkpoint by what it says it is, not by what it lacks.
        with tempfile.TemporaryDirectory() as folder:
            _copy(origin, index, layout.MODEL_INDEX, Path(folder))
            folders = layout.folders_of(layout.check_index(validate.read_json(Path(folder), layout.MODEL_INDEX)))
    files = layout.select_files(tuple(origin.sizes), selection, folders)
    names.check_used(files.values(), origin.sizes.keys())
    names.check_sizes({name: origin.sizes[name] for name in files.values()})
    return files


def _copy_all(
    origin: Origin, files: Mapping[str, str], folder: Path, selection: Selection, on_file: OnFile
) -> Mapping[str, Any]:
    """Copy all files into a folder and validate them: kilobytes before gigabytes."""
    total, copied = max(sum(origin.sizes[name] for name in files.values()), 1), 0
    targets = {name: target for target, name in files.items()}
    small = origin.ordered(name for target, name in files.items() if not names.is_weights(target))
    large = origin.ordered(name for target, name in files.items() if names.is_weights(target))
    for batch, check in ((small, validate.validate_texts), (large, validate.validate_weights)):
        for name in batch:
            _copy(origin, name, targets[name], folder)
            copied += origin.sizes[name]
            on_file(name, copied / total)
        check(folder, tuple(sorted(files)), selection)
    return validate.inspect_source(folder, selection)


def _copy(origin: Origin, name: str, target: str, folder: Path) -> None:
    path = folder / target
    path.parent.mkdir(parents=True, exist_ok=True)
    origin.copy(name, path)


def _contents(hashes: Mapping[str, str]) -> Mapping[str, str]:
    """Part name to content digest, as `validate.inspect` computes it from files."""
    parts: dict[str, dict[str, str]] = {}
    for target, sha256 in hashes.items():
        path = PurePosixPath(target)
        if len(path.parts) > 1:
            parts.setdefault(path.parts[0], {})[path.name] = sha256
    return {part: digests.json_digest(files) for part, files in parts.items()}

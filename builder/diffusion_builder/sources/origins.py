"""Where files come from: a hub's revision and a folder; archives are in `archive`."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from diffusion_builder import digests
from diffusion_builder.errors import BadInputError, Reason, UnavailableError
from diffusion_builder.sources import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from diffusion_builder.sources.hub import Hub, HubFile, HubReference


class Origin(Protocol):
    """A set of files with names as in a checkpoint."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Names, with forward slashes, and bytes."""

    def ordered(self, names: Iterable[str]) -> Sequence[str]:
        """The order in which these files are best copied."""

    def copy(self, name: str, target: Path) -> None:
        """Put one file at a path that does not exist, in a folder that does.

        Raises:
            BuilderError: the origin is not as it should be.
            OSError: the target cannot be written.
        """


@dataclass(frozen=True)
class HubOrigin:
    """A revision on a hub; `scratch` keeps what is half downloaded."""

    hub: Hub
    reference: HubReference
    listing: Mapping[str, HubFile]
    scratch: Path

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """As the hub lists them."""
        return {name: file.size for name, file in self.listing.items()}

    def ordered(self, names: Iterable[str]) -> Sequence[str]:
        """By name."""
        return sorted(names)

    def copy(self, name: str, target: Path) -> None:
        """Download, going on where an earlier download broke off, and compare with the hub's SHA-256 if it has one."""
        self.hub.download(self.reference, name, self.scratch)
        path = self.scratch / name
        expected = self.listing[name].sha256
        if expected and digests.of_file(path) != expected:
            path.unlink()
            raise UnavailableError(
                Reason.DIGEST_MISMATCH,
                f"{name} of {self.reference.repo} came with another SHA-256 than the hub lists; it is tried again",
            )
        shutil.copyfile(path, target) if path.is_symlink() else path.rename(target)


class FolderOrigin:
    """A folder, such as a mounted volume."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sizes: Mapping[str, int] = self._list()

    def ordered(self, names: Iterable[str]) -> Sequence[str]:
        """By name."""
        return sorted(names)

    def copy(self, name: str, target: Path) -> None:
        """Copy the content alone: no owner, mode or times."""
        shutil.copyfile(self.folder / name, target)

    def _list(self) -> Mapping[str, int]:
        """All regular files; a link that leads out of the folder is refused rather than followed."""
        root, sizes = self.folder.resolve(), {}
        for directory, folders, files in os.walk(self.folder):
            folders.sort()
            for path in (type(self.folder)(directory) / name for name in (*folders, *sorted(files))):
                if path.is_symlink() and not path.resolve().is_relative_to(root):
                    raise BadInputError(
                        Reason.UNSAFE_PATH,
                        f"{path} is a link that leads out of the checkpoint: copy the files instead (cp -rL)",
                    )
                if path.is_file():
                    sizes[path.relative_to(self.folder).as_posix()] = path.stat().st_size
                layout.check_count(len(sizes))
        return sizes

"""The content-addressed store: immutable directories named by digest, each with a `manifest.json`.

An artifact is written to `.tmp-*` beside its final place, flushed to disk and renamed, so that it is either there and
complete or not there at all, whatever kills the writer. Of two writers of the same artifact the first to rename wins
and the other drops its copy. Ages are read from leases and manifests, never from file times: network filesystems
disagree about those. Only plain files, folders, relative symbolic links, rename and fsync are used: no hard links, no
locks, no change of owner or mode.
"""

from diffusion_builder.store.core import Store
from diffusion_builder.store.manifest import FORMAT_VERSION, MANIFEST, Artifact, FileEntry, Kind, Manifest, Recipe
from diffusion_builder.store.staging import STAGING_GRACE_SECONDS, scratch_of

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "STAGING_GRACE_SECONDS",
    "Artifact",
    "FileEntry",
    "Kind",
    "Manifest",
    "Recipe",
    "Store",
    "scratch_of",
]

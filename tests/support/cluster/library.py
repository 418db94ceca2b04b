"""Artifacts that are built once, and that the stores of other tests start with.

A build from nothing takes minutes of processor time: a test that makes one leaves its store to the library.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.cluster.kube import Kube, Object, eventually
from tests.support.cluster.pipelines import end_state, example, wait_ready

if TYPE_CHECKING:
    from collections.abc import Iterable

STORE: Object = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "store"},
    "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "2Gi"}}},
}
USE_STORE = {"claimName": "store"}
"""spec.storage of a pipeline that uses this claim."""
_CLAIM = "shapes-store"
_OWNER = "65532:65532"


@dataclass(frozen=True)
class Library:
    """What examples/pipeline.yaml was built into.

    Attributes:
        kube: the namespace of the pipeline, which is suspended so that its server keeps no processor from others.
        folder: copy of its store, as it was once everything was built.
        end_state: of a pipeline that was built without a disturbance.
        status: of that pipeline.
    """

    kube: Kube
    folder: Path
    end_state: Object
    status: Object

    def fill(self, kube: Kube, claim: str = "store", without: Iterable[str] = ()) -> None:
        """Copy all artifacts into a claim, except those with these digests.

        Jobs that find their artifact answer in seconds; the others build.
        """
        folder = volume(kube, claim)
        copy(self.folder, folder)
        for path in (path for digest in without for path in folder.glob(f"*/{digest}")):
            # The store also has a file for each artifact that says when it was used.
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def fill_without_denoiser(self, kube: Kube, claim: str = "store") -> None:
        """The same as `fill`, without the checkpoint and all that is made of its denoiser: every stage has to work."""
        denoiser, (target,) = self.status["components"]["denoiser"], self.status["targets"]
        parts = (self.status["source"], denoiser, denoiser["skus"]["cpu"], target["repository"])
        self.fill(kube, claim, without=[part["digest"] for part in parts])


def build(kube: Kube, folder: Path) -> Library:
    """Build examples/pipeline.yaml in an empty namespace until it serves, copy its store into a folder, suspend it.

    Args:
        kube: the namespace.
        folder: where the copy goes; what is in it before is in the pipeline's store from the beginning.
    """
    # The operator makes the claim, and nothing else yet.
    kube.apply(example(suspend=True))
    store = volume(kube, _CLAIM)
    # An empty folder is nobody's store: its owner could not be the store's.
    if any(folder.iterdir()):
        copy(folder, store)
    kube.apply(example())
    pipeline = wait_ready(kube)
    copy(store, folder)
    library = Library(kube, folder, end_state(kube), pipeline["status"])
    kube.apply(example(suspend=True))
    return library


def keep(kube: Kube, folder: Path) -> None:
    """Copy the store of examples/pipeline.yaml into a folder, as if the default user had written it."""
    copy(volume(kube, _CLAIM), folder)
    subprocess.run(["chown", "--recursive", _OWNER, str(folder)], check=True, timeout=300)


def volume(kube: Kube, claim: str) -> Path:
    """Folder of this machine that holds a claim's files; the devcluster gives every claim one."""

    def bound() -> str:
        return str(((kube.get("pvc", claim) or {}).get("spec") or {}).get("volumeName", ""))

    name = eventually(bound, 60, lambda: f"claim {claim} is bound\n{kube.run('describe', 'pvc')}")
    persistent_volume = kube.get("pv", name)
    assert persistent_volume is not None
    return Path(persistent_volume["spec"]["hostPath"]["path"])


def copy(source: Path, target: Path) -> None:
    """Copy all files with their owners, who go on writing there."""
    subprocess.run(["cp", "--archive", f"{source}/.", str(target)], check=True, timeout=300)

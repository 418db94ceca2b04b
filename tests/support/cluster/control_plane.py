"""Components of Kubernetes for an API server that is alone."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tools.devcluster.build import require_built
from tools.devcluster.layout import default_root, layout_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tools.devcluster.bare import ApiServer


@contextmanager
def component(server: ApiServer, name: str, log: Path, *options: str) -> Iterator[None]:
    """Run a component, such as kube-scheduler, for this API server until the block ends; its log is in `log`."""
    # Under a path of its own: `devcluster down` ends what runs from its own folder.
    program = log.parent / "kube"
    program.symlink_to(require_built(layout_at(default_root())).devcluster_kube)
    flags = [f"--kubeconfig={server.kubeconfig}", "--leader-elect=false", "--secure-port=0", *options]
    flags += [f"--authentication-kubeconfig={server.kubeconfig}", f"--authorization-kubeconfig={server.kubeconfig}"]
    with log.open("wb") as sink:
        process = subprocess.Popen([str(program), name, *flags], stdout=sink, stderr=sink)
    try:
        yield
    finally:
        process.kill()
        process.wait()

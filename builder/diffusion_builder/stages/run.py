"""The stages as functions from arguments to a JSON result; modules that import torch are loaded when needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.sources import names
from diffusion_builder.stages.progress import ProgressEvent, Reporter
from diffusion_builder.store import Artifact, Kind, Store
from diffusion_contract.enums import Runtime, Stage
from diffusion_contract.results import reported

if TYPE_CHECKING:
    from pathlib import Path

    from diffusion_builder.store.manifest import Manifest
    from diffusion_contract.enums import Component

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Inspection:
    """Outcome of a command that makes no artifact.

    Args:
        size: of what it has looked at, bytes.
        summary: for the last line of progress.
        fields: of the result, besides those of every stage.
    """

    size: int
    summary: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class StageContext:
    """Where artifacts are and where progress goes."""

    store: Store
    reporter: Reporter

    def run(self, stage: Stage, component: str, work: Callable[[Callable[..., None]], tuple[Artifact, bool]]) -> Result:
        """Run a stage with progress around it.

        Args:
            stage: its name.
            component: which one, or empty.
            work: does it; is given a function that reports a phase and a fraction.

        Returns:
            stage, digest, sizeBytes, seconds, cached, and fields of the manifest.
        """
        began = time.monotonic()

        def phase(name: str, fraction: float | None = None, message: str = "") -> None:
            self.reporter.report(ProgressEvent(stage, component, name, fraction, message))

        phase("start")
        try:
            artifact, cached = work(phase)
        except BaseException:
            phase("failed")
            raise
        phase("cached" if cached else "done", 1.0)
        manifest = artifact.manifest
        return {
            "stage": str(stage),
            "digest": manifest.digest,
            "sizeBytes": manifest.size,
            "seconds": round(time.monotonic() - began, 3),
            "cached": cached,
            **_reported_fields(manifest, stage),
        }

    def inspect(self, stage: str, digest: str, work: Callable[[], Inspection], size: str = "sizeBytes") -> Result:
        """Run a command that makes no artifact; its result has the same fields, the size under a name of its own."""
        began = time.monotonic()
        inspection = work()
        self.reporter.report(ProgressEvent(stage, "", "done", 1.0, inspection.summary))
        seconds = round(time.monotonic() - began, 3)
        fields = {size: inspection.size, "seconds": seconds, "cached": False, **inspection.fields}
        return {"stage": stage, "digest": digest, **fields}


def _reported_fields(manifest: Manifest, stage: Stage) -> Result:
    # Only a source has weights as its files, and tens of thousands of files.
    measured_fields = {"weightBytes": _weight_bytes(manifest)} if stage is Stage.FETCH else {}
    fields = {**manifest.extra, **measured_fields}
    return {name: fields[name] for name in reported(stage)}


def _weight_bytes(manifest: Manifest) -> Mapping[str, int]:
    """Bytes of the weights in each subfolder."""
    sizes: dict[str, int] = {}
    for name, entry in manifest.files.items():
        folder, separator, _ = name.partition("/")
        if separator and names.is_weights(name):
            sizes[folder] = sizes.get(folder, 0) + entry.size
    return sizes


@dataclass(frozen=True)
class FetchArguments:
    """Where a checkpoint comes from: a folder, a repository at a revision, or an archive with its SHA-256.

    `root` is where links of the folder may lead to: see `origins.FolderOrigin`. `component`, `file`, `subfolder` and
    `variant` choose a part of it: see `layout.Selection`.
    """

    path: Path | None = None
    repo: str | None = None
    revision: str | None = None
    url: str | None = None
    sha256: str | None = None
    component: str | None = None
    file: str | None = None
    subfolder: str | None = None
    variant: str | None = None
    root: Path | None = None


def fetch(context: StageContext, origin: FetchArguments) -> Result:
    """Bring a checkpoint or one component into the store."""
    return context.run(Stage.FETCH, origin.component or "", lambda phase: _fetch(context.store, origin, phase))


def _fetch(store: Store, origin: FetchArguments, phase: Callable[..., None]) -> tuple[Artifact, bool]:
    from diffusion_builder import sources
    from diffusion_builder.sources.download import Download
    from diffusion_builder.sources.hub import Hub, HubReference
    from diffusion_builder.sources.layout import Selection

    def on_file(name: str, fraction: float) -> None:
        phase("copy" if origin.path else "download", fraction, name)

    selection = Selection(origin.component, origin.file, origin.subfolder, origin.variant)
    if origin.root is not None and origin.path is None:
        raise BadInputError(Reason.INVALID_ARGUMENT, "--root is where links of a folder may lead to: give --path too")
    match (origin.path, origin.repo, origin.revision, origin.url, origin.sha256):
        case (path, None, None, None, None) if path is not None:
            return sources.from_folder(store, path, on_file, selection, origin.root)
        case (None, str(repo), str(revision), None, None):
            return sources.from_hub(store, Hub.from_environment, HubReference(repo, revision), on_file, selection)
        case (None, None, None, str(url), str(sha256)):
            return sources.from_archive(store, Download(url, sha256), on_file, selection)
    raise BadInputError(
        Reason.INVALID_ARGUMENT,
        "give either a folder (--path), or both --repo ORG/NAME and --revision COMMIT, or both --url and --sha256",
    )


def export(
    context: StageContext, source: str, component: Component, precision: str = "float32", options: str = "{}"
) -> Result:
    """Export one component to ONNX."""
    from diffusion_builder.arguments import parse
    from diffusion_builder.stages.export import ExportRequest
    from diffusion_builder.stages.export import export as export_component
    from diffusion_contract.exports import ExportOptions

    export_options = parse(ExportOptions, options, "--options")
    request = ExportRequest(context.store.get(Kind.SOURCE, source), component, precision, export_options)
    return context.run(Stage.EXPORT, component, lambda phase: export_component(context.store, request, phase))


@dataclass(frozen=True)
class CompileArguments:
    """What is compiled and for what.

    Args:
        onnx: digest of the exported graph.
        runtime: `onnxruntime` or `tensorrt`.
        sku: `cpu`, or a GPU product as in the node label.
        shapes: JSON of the profile.
        optimization_level: 0 to 5; only `tensorrt` reads it, as all that follows.
        workspace: MiB, or None for no limit.
        layers: whether the engine's layers are written as JSON.
    """

    onnx: str
    runtime: str
    sku: str
    shapes: str
    optimization_level: int = 3
    workspace: int | None = None
    layers: bool = False


def compile_(context: StageContext, request: CompileArguments) -> Result:
    """Compile one component for a SKU."""
    from diffusion_builder.arguments import parse
    from diffusion_builder.engines.onnx_runtime import compile_onnx
    from diffusion_contract.spec import Shapes

    # Judged for every runtime, also for one that keeps dimensions open: a wrong profile should fail early, and once.
    shapes = parse(Shapes, request.shapes, "--shapes")
    store = context.store
    onnx = store.get(Kind.ONNX, request.onnx)

    def work(phase: Callable[..., None]) -> tuple[Artifact, bool]:
        if request.runtime != Runtime.TENSORRT:
            phase("optimize")
            return compile_onnx(store, onnx, request.runtime, request.sku)
        from diffusion_builder.engines.tensorrt.build import PlanRequest, compile_plan
        from diffusion_builder.engines.tensorrt.command import TensorRTOptions

        options = TensorRTOptions(request.optimization_level, request.workspace, request.layers)
        return compile_plan(store, PlanRequest(onnx, request.sku, shapes, options), phase)

    return context.run(Stage.COMPILE, str(onnx.manifest.extra["component"]), work)


def assemble(context: StageContext, spec: str) -> Result:
    """Assemble a Triton repository."""
    from diffusion_builder.arguments import parse
    from diffusion_builder.repository import assemble as repository
    from diffusion_contract.assembly import AssembleSpec

    assemble_spec = parse(AssembleSpec, spec, "--spec")
    return context.run(Stage.ASSEMBLE, "", lambda _phase: repository.assemble(context.store, assemble_spec))


def parity(context: StageContext, digest: str) -> Result:
    """Compare images of a repository with those of diffusers."""
    from diffusion_builder.parity.stage import check_parity

    repository = context.store.get(Kind.REPOSITORY, digest)
    return context.run(Stage.PARITY, "", lambda phase: check_parity(context.store, repository, phase))


def verify(context: StageContext, digest: str) -> Result:
    """Compare a repository with its manifests."""
    from diffusion_builder.serving.verify import verify as compare

    def work() -> Inspection:
        report = compare(context.store, context.store.get(Kind.REPOSITORY, digest))
        return Inspection(report.size, f"{report.files} files, {report.size} bytes", {"files": report.files})

    return context.inspect("verify", digest, work)


@dataclass(frozen=True)
class CompareArguments:
    """Which servers are compared.

    Args:
        stable: HTTP address of the stable revision.
        canary: of the other one.
        spec: JSON of `comparison.CompareSpec`.
        export: folder for a copy of the images, for a scorer.
        score: the file that the scorer has left.
    """

    stable: str
    canary: str
    spec: str
    export: Path | None = None
    score: Path | None = None


def compare(context: StageContext, request: CompareArguments) -> Result:
    """Compare the images of two revisions for the golden prompts."""
    from diffusion_builder.arguments import parse
    from diffusion_builder.compare import stage
    from diffusion_builder.compare.client import server
    from diffusion_contract.comparison import CompareSpec

    compare_spec = parse(CompareSpec, request.spec, "--spec")
    servers = (server(request.stable), server(request.canary))
    result = context.run(Stage.COMPARE, "", lambda phase: stage.compare(context.store, servers, compare_spec, phase))
    result = {**result, "comparison": f"{Kind.COMPARISON}/{result['digest']}"}
    if request.export is not None:
        stage.copy_images(context.store.get(Kind.COMPARISON, result["digest"]), request.export)
    return stage.apply_score(result, request.score) if request.score is not None else result


def smoke_test(context: StageContext, url: str, digest: str, timeout: float) -> Result:
    """Request one image of every ensemble of a server."""
    from diffusion_builder.serving.smoke import smoke_test as test_server

    def work() -> Inspection:
        repository = context.store.get(Kind.REPOSITORY, digest)
        ensembles = list(test_server(url, repository, timeout))
        return Inspection(repository.manifest.size, ", ".join(ensembles), {"ensembles": ensembles})

    return context.inspect("smoke-test", digest, work)

"""The build Jobs: what each is asked, and what its name depends on."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from diffusion_contract.assembly import assembly
from diffusion_contract.comparison import comparison
from diffusion_contract.durations import duration_seconds
from diffusion_contract.engines import EngineSpec, SourceRef
from diffusion_contract.enums import Runtime, Stage
from diffusion_contract.resources import Resources
from diffusion_contract.spec import DiffusionPipelineSpec, Jobs, PodTemplate, Source
from diffusion_contract.spec.jobs import merged_resources
from diffusion_contract.spec.rollout import Quality
from diffusion_operator import digests, naming
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.common import Placement, job_placement
from diffusion_operator.manifests.job import SOURCE_PATH, BuildJobSpec
from diffusion_operator.manifests.store_node import StoreNode
from diffusion_operator.plan import job_memory
from diffusion_operator.plan.build_steps import BuildStep
from diffusion_operator.plan.job_memory import JobPeak, component_bytes, source_bytes, with_memory
from diffusion_operator.settings import Settings

SMALL_RESOURCES = Resources(requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "1Gi"})
COMPARE_RESOURCES = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "2Gi"})
FETCH_RESOURCES = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "2Gi"})


@dataclass(frozen=True)
class StoreClaim:
    """The claim that holds the artifacts; its UID tells one store from another with the same name.

    Attributes:
        node: that all its pods share; None when several nodes can mount it.
    """

    claim: str
    uid: str
    node: StoreNode | None = None


@dataclass(frozen=True)
class BuildJobFactory:
    """Makes the Jobs of one spec."""

    spec: DiffusionPipelineSpec
    store: StoreClaim
    settings: Settings

    @property
    def jobs(self) -> Jobs:
        """Placement and metadata of all Jobs."""
        return self.settings.jobs.merged(self.spec.jobs)

    def fetch(self, ref: SourceRef) -> BuildJobSpec:
        """Bring one source, or a component of it, into the store."""
        hub, claim = ref.source.hugging_face, ref.source.persistent_volume_claim
        inputs, arguments = _source_arguments(ref.source)
        selection = {
            "component": ref.component, "file": ref.file,
            "subfolder": ref.source.subfolder, "variant": ref.source.variant,
        }  # fmt: skip
        for name, value in selection.items():
            if value is not None:
                inputs[name] = value
                arguments = (*arguments, f"--{name}", value)
        return replace(
            self._job(Stage.FETCH, inputs, arguments, self._small(FETCH_RESOURCES)),
            source_claim=claim.claim_name if claim is not None else None,
            token=hub.token_secret_ref if hub is not None else None,
        )

    def export(self, engine: EngineSpec, fetched: Mapping[str, BuildStep]) -> BuildJobSpec:
        """Export a component; keyed by what it is made from, so that another UNet leaves the text encoder alone."""
        component, precision = str(engine.component), str(engine.precision)
        inputs = {
            "component": component,
            "content": {folder: _content(fetched[name], folder) for folder, name in engine.contents},
            "precision": precision,
            "options": engine.options(lambda name: _contents(fetched[name], engine)),
        }
        source = fetched[engine.source].digest
        arguments: tuple[str, ...] = ("--source", source, "--component", component, "--precision", precision)
        if options := engine.options(lambda name: fetched[name].digest):
            arguments = (*arguments, "--options", _json(options))
        weight_bytes = component_bytes(engine.component, fetched[engine.source])
        job = self._job(Stage.EXPORT, inputs, arguments, self._sized(job_memory.EXPORT, weight_bytes))
        return replace(job, component=engine.name)

    def compile(self, engine: EngineSpec, export: BuildStep, sku: str, placement: Placement) -> BuildJobSpec:
        """Compile an exported component for one SKU, on a node of that SKU."""
        runtime = str(placement.runtime)
        shapes = self.spec.shapes.model_dump(mode="json", by_alias=True)
        inputs: JsonObject = {
            "component": str(engine.component),
            "sku": sku,
            # The content's digest: an export that yields the same graph again stops here.
            "content": export.result.get("content", export.digest),
            "runtime": runtime,
            "shapes": shapes,
        }
        arguments: tuple[str, ...] = ("--onnx", export.digest, "--runtime", runtime, "--sku", sku)
        arguments = (*arguments, "--shapes", _json(shapes))
        tensorrt = placement.runtime == Runtime.TENSORRT
        if tensorrt:
            flags = self._tensorrt_flags()
            # A plan only runs in the TensorRT that made it, and the image decides which one that is.
            inputs |= {"flags": flags, "image": self.settings.builder_image_for(placement.runtime)}
            arguments = (*arguments, *flags)
        peak = job_memory.COMPILE_TENSORRT if tensorrt else job_memory.COMPILE
        job = self._job(Stage.COMPILE, inputs, arguments, self._sized(peak, export.result.get("sizeBytes")))
        where = job_placement(self.jobs, self.spec.engines.priority_class_name, placement)
        return replace(job, component=engine.name, sku=sku, placement=where)

    def assemble(self, checkpoint: BuildStep, engines: Mapping[str, str], runtime: Runtime) -> BuildJobSpec:
        """Make a Triton model repository of these engines."""
        document = assembly(self.spec, runtime, checkpoint.digest, engines)
        return self._job(Stage.ASSEMBLE, document.document(), ("--spec", document.text()), self._small(SMALL_RESOURCES))

    def parity(self, repository: BuildStep, sources: Iterable[BuildStep]) -> BuildJobSpec:
        """Compare images of the repository with those of diffusers; on a CPU, for every runtime."""
        resources = self._sized(job_memory.PARITY, source_bytes(sources))
        return self._job(
            Stage.PARITY, {"repository": repository.digest}, ("--repository", repository.digest), resources
        )

    def compare(self, urls: Mapping[str, str], quality: Quality) -> BuildJobSpec:
        """Compare the images of two revisions.

        Args:
            urls: HTTP addresses of the Services of the `stable` and of the `canary` revision; their names have the
                revision in them, so that equal names are equal images.
            quality: criteria of the comparison, and its scorer.
        """
        services = {side: naming.service_of_url(urls[side]) for side in ("stable", "canary")}
        compare_spec = comparison(self.spec, quality, **services)
        scorer = quality.scorer
        arguments = ("--stable", urls["stable"], "--canary", urls["canary"], "--spec", compare_spec.text())
        inputs = {
            **urls,
            "document": compare_spec.document(),
            "scorer": scorer.model_dump(mode="json", exclude_none=True) if scorer is not None else None,
        }
        return replace(self._job(Stage.COMPARE, inputs, arguments, self._small(COMPARE_RESOURCES)), scorer=scorer)

    def _small(self, defaults: Resources) -> Resources:
        """Of a Job that has no field of its own for them."""
        return merged_resources(defaults, self.jobs.resources)

    def _sized(self, peak: JobPeak, weight_bytes: int | None) -> Resources:
        """Of a Job whose memory depends on what it reads."""
        return with_memory(self.spec.engines.resources, peak.needed_bytes(weight_bytes))

    def _tensorrt_flags(self) -> tuple[str, ...]:
        engines = self.spec.engines
        options = {"--optimization-level": engines.optimization_level, "--workspace": engines.workspace}
        return tuple(word for name, value in options.items() if value is not None for word in (name, str(value)))

    def _job(self, stage: Stage, inputs: JsonObject, arguments: tuple[str, ...], resources: Resources) -> BuildJobSpec:
        engines, jobs = self.spec.engines, self.jobs
        return BuildJobSpec(
            stage=str(stage),
            key=digests.build_key(stage, self.store.claim, inputs),
            arguments=arguments,
            resources=resources,
            timeout_seconds=duration_seconds(engines.timeout),
            claim=self.store.claim,
            store_uid=self.store.uid,
            placement=job_placement(jobs, engines.priority_class_name, Placement()),
            labels=_pairs({**(jobs.labels or {}), **(engines.labels or {})}),
            annotations=_pairs(jobs.annotations),
            pod_templates=pod_templates(self.settings.jobs, self.spec.jobs),
            node=self.store.node,
        )


def pod_templates(*jobs: Jobs | None) -> tuple[PodTemplate, ...]:
    """The administrator's, then the pipeline's."""
    return tuple(item.pod_template for item in jobs if item is not None and item.pod_template is not None)


def _source_arguments(source: Source) -> tuple[JsonObject, tuple[str, ...]]:
    """What names a source, and the builder's arguments for it."""
    hub, claim, archive = source.hugging_face, source.persistent_volume_claim, source.archive
    if hub is not None:
        return {"repo": hub.repo, "revision": hub.revision}, ("--repo", hub.repo, "--revision", hub.revision)
    if claim is not None:
        # The version names the Job and is no argument: the builder names what it reads by its content.
        version = {} if claim.version is None else {"version": claim.version}
        # Links may lead to wherever the claim is mounted: the cache of a hub is made of them.
        arguments = ("--path", f"{SOURCE_PATH}/{claim.path}", "--root", SOURCE_PATH)
        return {"claim": claim.claim_name, "path": claim.path, **version}, arguments
    if archive is not None:
        return {"url": archive.url, "sha256": archive.sha256}, ("--url", archive.url, "--sha256", archive.sha256)
    return {}, ()  # the API server refuses this; a spec that got around it must not crash the operator


def _content(step: BuildStep, folder: str) -> str:
    """Digest of what is in a subfolder of a source."""
    return str(step.result.get("subfolders", {}).get(folder, step.digest))


def _contents(step: BuildStep, engine: EngineSpec) -> JsonObject | str:
    """What a source holds, without what the engine does not read."""
    contents: JsonObject = step.result.get("subfolders", {})
    if not contents:
        return step.digest
    decisive = {folder: contents[folder] for folder, _ in engine.contents if folder in contents}
    return decisive or contents


def _pairs(entries: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((entries or {}).items()))


def _json(value: JsonObject) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))

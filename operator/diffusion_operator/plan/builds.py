"""The chain of builds: fetch, export, compile, assemble. Each stage's results name the next stage's Jobs."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from diffusion_operator import digests
from diffusion_operator.api.base import Resources, microseconds, seconds
from diffusion_operator.api.spec import DiffusionPipelineSpec, Target
from diffusion_operator.manifests.common import Placement
from diffusion_operator.manifests.job import SOURCE_PATH, JobRequest
from diffusion_operator.plan.jobs import JobView
from diffusion_operator.plan.steps import Step, step

JsonObject = dict[str, Any]

SOURCE_OF: Mapping[str, str | None] = {
    "text_encoder": "text_encoder",
    "denoiser": "unet",
    "vae_decoder": "vae",
    "scheduler_step": None,
}
"""Which part of the checkpoint a component is made from; None: no weights at all."""

CPU = "cpu"
FETCH_RESOURCES = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "2Gi"})
ASSEMBLE_RESOURCES = Resources(requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "1Gi"})


@dataclass(frozen=True)
class Builds:
    """All steps that are known by now.

    Attributes:
        fetch: the checkpoint.
        exports: by component; empty until the checkpoint is there.
        compiles: by component and SKU; holds those whose export is done.
        assembles: by SKU; holds those whose engines are all there.
        skus: of all targets.
    """

    fetch: Step
    exports: Mapping[str, Step]
    compiles: Mapping[tuple[str, str], Step]
    assembles: Mapping[str, Step]
    skus: tuple[str, ...]

    def steps(self) -> tuple[Step, ...]:
        """All known steps in the order of the chain."""
        return (self.fetch, *self.exports.values(), *self.compiles.values(), *self.assembles.values())

    def engine_steps(self) -> tuple[Step, ...]:
        """All known steps up to the engines."""
        return (self.fetch, *self.exports.values(), *self.compiles.values())

    @property
    def engines_wanted(self) -> int:
        """Number of engines that the spec asks for."""
        return len(SOURCE_OF) * len(self.skus)

    @property
    def engines_done(self) -> int:
        """Number of engines in the store."""
        return sum(item.done for item in self.compiles.values())

    def settled_stages(self) -> frozenset[str]:
        """Stages of which every wanted Job is known: any other Job of such a stage is not wanted any more."""
        settled = {"fetch"}
        if self.exports:
            settled.add("export")
        if len(self.compiles) == self.engines_wanted:
            settled.add("compile")
        if len(self.assembles) == len(self.skus):
            settled.add("assemble")
        return frozenset(settled)


def sku_of(target: Target) -> str:  # noqa: ARG001 - GPU products come with GPU targets
    """SKU that the target's engines are compiled for."""
    return CPU


def chain(spec: DiffusionPipelineSpec, store: "Store", jobs: Mapping[str, JobView]) -> Builds:
    """The steps, as far as the results of earlier ones name them."""
    placements = _placements(spec.targets)
    fetch = step(_fetch(spec, store), jobs)
    exports = _exports(spec, store, fetch, jobs)
    compiles = {
        (component, sku): step(_compile(spec, store, (component, sku), export, placements[sku]), jobs)
        for component, export in exports.items()
        if export.done
        for sku in placements
    }
    assembles = {
        sku: step(_assemble(spec, store, fetch, _engines(compiles, sku)), jobs)
        for sku in placements
        if len(_engines(compiles, sku)) == len(SOURCE_OF)
    }
    return Builds(fetch, exports, compiles, assembles, tuple(placements))


@dataclass(frozen=True)
class Store:
    """The claim that holds the artifacts; its UID tells one store from another with the same name."""

    claim: str
    uid: str


def _placements(targets: Iterable[Target]) -> dict[str, Placement]:
    """Where engines of each SKU are compiled: where the first target of that SKU runs."""
    placements: dict[str, Placement] = {}
    for target in targets:
        selector = tuple(sorted((target.node_selector or {}).items()))
        placements.setdefault(sku_of(target), Placement(selector, tuple(target.tolerations or ())))
    return placements


def _exports(spec: DiffusionPipelineSpec, store: Store, fetch: Step, jobs: Mapping[str, JobView]) -> dict[str, Step]:
    if not fetch.done:
        return {}
    return {component: step(_export(spec, store, fetch, component), jobs) for component in SOURCE_OF}


def _engines(compiles: Mapping[tuple[str, str], Step], sku: str) -> dict[str, str]:
    return {name: item.digest for (name, its_sku), item in compiles.items() if its_sku == sku and item.done}


def _fetch(spec: DiffusionPipelineSpec, store: Store) -> JobRequest:
    source = spec.model.source
    hub, claim = source.hugging_face, source.persistent_volume_claim
    inputs: JsonObject
    if hub is not None:
        inputs = {"repo": hub.repo, "revision": hub.revision}
        arguments: tuple[str, ...] = ("--repo", hub.repo, "--revision", hub.revision)
    elif claim is not None:
        inputs = {"claim": claim.claim_name, "path": claim.path}
        arguments = ("--path", f"{SOURCE_PATH}/{claim.path}")
    else:  # the API server refuses this; a spec that got around it must not crash the operator
        inputs, arguments = {}, ()
    return JobRequest(
        stage="fetch",
        component=None,
        sku=None,
        key=digests.build_key("fetch", store.claim, inputs),
        arguments=arguments,
        resources=FETCH_RESOURCES,
        timeout_seconds=seconds(spec.engines.timeout),
        claim=store.claim,
        store_uid=store.uid,
        source_claim=claim.claim_name if claim is not None else None,
        token=hub.token_secret_ref if hub is not None else None,
    )


def _export(spec: DiffusionPipelineSpec, store: Store, fetch: Step, component: str) -> JobRequest:
    part = SOURCE_OF[component]
    contents = fetch.result.get("components", {})
    # Keyed by the part, not by the checkpoint: a new UNet does not export the text encoder again.
    inputs = {
        "component": component,
        "content": contents.get(part, fetch.digest) if part is not None else None,
        "precision": spec.precision,
    }
    arguments = ("--source", fetch.digest, "--component", component, "--precision", spec.precision)
    return JobRequest(
        stage="export",
        component=component,
        sku=None,
        key=digests.build_key("export", store.claim, inputs),
        arguments=arguments,
        resources=spec.engines.resources,
        timeout_seconds=seconds(spec.engines.timeout),
        claim=store.claim,
        store_uid=store.uid,
    )


def _compile(
    spec: DiffusionPipelineSpec, store: Store, what: tuple[str, str], export: Step, placement: Placement
) -> JobRequest:
    component, sku = what
    runtime, shapes = spec.engines.runtime, _shapes(spec)
    inputs = {
        "component": component,
        "sku": sku,
        # The content's digest: an export that yields the same graph again stops here.
        "content": export.result.get("content", export.digest),
        "runtime": runtime,
        "shapes": shapes,
    }
    arguments = ("--onnx", export.digest, "--runtime", runtime, "--target", sku, "--shapes", _json(shapes))
    return JobRequest(
        stage="compile",
        component=component,
        sku=sku,
        key=digests.build_key("compile", store.claim, inputs),
        arguments=arguments,
        resources=spec.engines.resources,
        timeout_seconds=seconds(spec.engines.timeout),
        claim=store.claim,
        store_uid=store.uid,
        placement=placement,
    )


def _assemble(spec: DiffusionPipelineSpec, store: Store, fetch: Step, engines: Mapping[str, str]) -> JobRequest:
    batching = spec.serving.batching
    document = {
        "source": fetch.digest,
        "engines": dict(engines),
        "runtime": spec.engines.runtime,
        "pipelines": [{"task": item.task, "steps": sorted(item.steps)} for item in spec.pipelines],
        "scheduler": spec.scheduler.model_dump(mode="json", by_alias=True, exclude_none=True),
        "shapes": _shapes(spec),
        "batching": {
            "maxDelayMicroseconds": microseconds(batching.max_delay),
            "preferred": sorted(batching.preferred or ()),
        },
    }
    return JobRequest(
        stage="assemble",
        component=None,
        sku=None,
        key=digests.build_key("assemble", store.claim, document),
        arguments=("--spec", _json(document)),
        resources=ASSEMBLE_RESOURCES,
        timeout_seconds=seconds(spec.engines.timeout),
        claim=store.claim,
        store_uid=store.uid,
    )


def _shapes(spec: DiffusionPipelineSpec) -> JsonObject:
    return spec.shapes.model_dump(mode="json", by_alias=True)


def _json(value: JsonObject) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))

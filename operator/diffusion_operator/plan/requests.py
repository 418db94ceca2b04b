"""The build Jobs: what each is asked, and what its name depends on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusion_contract.base import Resources, microseconds, seconds
from diffusion_contract.spec import DiffusionPipelineSpec, Pipeline, Source
from diffusion_operator import digests, naming
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.common import Placement
from diffusion_operator.manifests.job import SOURCE_PATH, JobRequest, Scorer
from diffusion_operator.plan import parts
from diffusion_operator.plan.parts import FOLDERS, MODEL, Origin, Part
from diffusion_operator.plan.steps import BuildStep as Step
from diffusion_operator.settings import Runtime, Settings

SMALL = Resources(requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "1Gi"})
JUDGE = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "2Gi"})
FETCH = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "2Gi"})


@dataclass(frozen=True)
class Store:
    """The claim that holds the artifacts; its UID tells one store from another with the same name."""

    claim: str
    uid: str


@dataclass(frozen=True)
class Requests:
    """Makes the Jobs of one spec."""

    spec: DiffusionPipelineSpec
    store: Store
    settings: Settings

    def fetch(self, origin: Origin) -> JobRequest:
        """Bring one source, or a part of it, into the store."""
        hub, claim = origin.source.hugging_face, origin.source.persistent_volume_claim
        inputs, arguments = _place(origin.source)
        only = {"component": origin.component, "file": origin.file}
        for name, value in only.items():
            if value is not None:
                inputs[name] = value
                arguments = (*arguments, f"--{name}", value)
        return self._job(
            "fetch",
            inputs,
            arguments,
            resources=FETCH,
            source_claim=claim.claim_name if claim is not None else None,
            token=hub.token_secret_ref if hub is not None else None,
        )

    def export(self, part: Part, fetched: Mapping[str, Step]) -> JobRequest:
        """Export one part; keyed by what it is made from, so that a new UNet does not export the text encoder again."""
        wanted = parts.precision(self.spec, part)
        inputs = {
            "component": part.component,
            "content": {folder: _content(fetched, folder) for folder in part.folders},
            "precision": wanted,
            "options": parts.options(self.spec, part, lambda role: _contents(fetched[role], part)),
        }
        arguments: tuple[str, ...] = (
            "--source",
            fetched[part.base].digest,
            "--component",
            part.component,
            "--precision",
            wanted,
        )
        options = parts.options(self.spec, part, lambda role: fetched[role].digest)
        if options:
            arguments = (*arguments, "--options", _json(options))
        return self._job("export", inputs, arguments, component=part.name, resources=self.spec.engines.resources)

    def compile(self, part: Part, export: Step, sku: str, placement: Placement) -> JobRequest:
        """Compile one exported part for one SKU, on a node of that SKU."""
        runtime = placement.runtime
        shapes = shapes_of(self.spec)
        inputs: JsonObject = {
            "component": part.component,
            "sku": sku,
            # The content's digest: an export that yields the same graph again stops here.
            "content": export.result.get("content", export.digest),
            "runtime": runtime,
            "shapes": shapes,
        }
        arguments: tuple[str, ...] = ("--onnx", export.digest, "--runtime", runtime, "--target", sku)
        arguments = (*arguments, "--shapes", _json(shapes))
        if runtime == "tensorrt":
            flags = self._tensorrt_flags()
            # A plan only runs in the TensorRT that made it, and the image decides which one that is.
            inputs |= {"flags": flags, "image": self.settings.builder(runtime)}
            arguments = (*arguments, *flags)
        return self._job(
            "compile",
            inputs,
            arguments,
            component=part.name,
            sku=sku,
            resources=self.spec.engines.resources,
            placement=placement,
        )

    def assemble(self, model: Step, engines: Mapping[str, str], runtime: Runtime) -> JobRequest:
        """Make a Triton model repository of these engines."""
        batching = self.spec.serving.batching
        nets = {parts.control_net(net.name): net.name for net in self.spec.model.control_nets or ()}
        document = {
            "source": model.digest,
            "engines": {name: digest for name, digest in engines.items() if name not in nets},
            "controlNets": [{"name": name, "engine": engines[key]} for key, name in nets.items()],
            "runtime": runtime,
            "pipelines": [_pipeline(item) for item in self.spec.pipelines],
            "schedulers": [
                item.model_dump(mode="json", by_alias=True, exclude_none=True) for item in self.spec.samplers
            ],
            "shapes": shapes_of(self.spec),
            "batching": {
                "maxDelayMicroseconds": microseconds(batching.max_delay),
                "preferred": sorted(batching.preferred or ()),
                "takeTurns": batching.take_turns,
                "priorities": batching.priorities,
            },
        }
        return self._job("assemble", document, ("--spec", _json(document)), resources=SMALL)

    def check(self, repository: Step) -> JobRequest:
        """Compare what the repository draws with what diffusers draws; on a CPU, for every runtime."""
        arguments = ("--repository", repository.digest)
        return self._job("check", {"repository": repository.digest}, arguments, resources=self.spec.engines.resources)

    def judge(self, urls: Mapping[str, str], quality: JsonObject) -> JobRequest:
        """Compare what two revisions draw.

        Args:
            urls: HTTP addresses of the Services of the `stable` and of the `canary` revision; their names have the
                revision in them, so that equal names are equal pictures.
            quality: `spec.rollout.analysis.quality` as JSON.
        """
        given = dict(quality)
        scorer = given.pop("scorer", None)
        document = {
            **{side: naming.host(urls[side]) for side in ("stable", "canary")},
            "ensembles": _ensembles(self.spec),
            "height": self.spec.shapes.height.opt,
            "width": self.spec.shapes.width.opt,
            **given,
        }
        arguments = ("--stable", urls["stable"], "--canary", urls["canary"], "--spec", _json(document))
        who = Scorer(scorer["image"], tuple(scorer.get("command") or ())) if scorer is not None else None
        inputs = {**urls, "document": document, "scorer": scorer}
        return self._job("judge", inputs, arguments, resources=JUDGE, scorer=who)

    def _tensorrt_flags(self) -> tuple[str, ...]:
        engines = self.spec.engines
        given = {"--optimization-level": engines.optimization_level, "--workspace": engines.workspace}
        return tuple(word for name, value in given.items() if value is not None for word in (name, str(value)))

    def _job(
        self,
        stage: str,
        inputs: JsonObject,
        arguments: tuple[str, ...],
        **more: Any,  # noqa: ANN401 - fields of JobRequest
    ) -> JobRequest:
        engines = self.spec.engines
        defaults: JsonObject = {
            "component": None,
            "sku": None,
            "placement": Placement(priority_class=engines.priority_class_name),
        }
        return JobRequest(
            stage=stage,
            key=digests.build_key(stage, self.store.claim, inputs),
            arguments=arguments,
            timeout_seconds=seconds(engines.timeout),
            claim=self.store.claim,
            store_uid=self.store.uid,
            labels=tuple(sorted((engines.labels or {}).items())),
            **(defaults | more),
        )


def shapes_of(spec: DiffusionPipelineSpec) -> JsonObject:
    """The profile as JSON."""
    return spec.shapes.model_dump(mode="json", by_alias=True)


def _place(source: Source) -> tuple[JsonObject, tuple[str, ...]]:
    """What names a source, and the builder's arguments for it."""
    hub, claim, archive = source.hugging_face, source.persistent_volume_claim, source.archive
    if hub is not None:
        return {"repo": hub.repo, "revision": hub.revision}, ("--repo", hub.repo, "--revision", hub.revision)
    if claim is not None:
        return {"claim": claim.claim_name, "path": claim.path}, ("--path", f"{SOURCE_PATH}/{claim.path}")
    if archive is not None:
        return {"url": archive.url, "sha256": archive.sha256}, ("--url", archive.url, "--sha256", archive.sha256)
    return {}, ()  # the API server refuses this; a spec that got around it must not crash the operator


def _content(fetched: Mapping[str, Step], folder: str) -> str:
    """Digest of a folder of the checkpoint, from the source that has it."""
    role = next((name for name, its in FOLDERS.items() if its == folder and name in fetched), MODEL)
    step = fetched[role]
    return str(step.result.get("components", {}).get(folder, step.digest))


def _contents(step: Step, part: Part) -> JsonObject | str:
    """What a source holds, without what the part does not read."""
    contents: JsonObject = step.result.get("components", {})
    if not contents:
        return step.digest
    known = {folder: digest for folder, digest in contents.items() if folder in part.folders}
    return known or contents


def _pipeline(item: Pipeline) -> JsonObject:
    """Lists that are sets in a fixed order, so that the same ensembles have the same name."""
    return {
        "task": item.task,
        "steps": sorted(item.steps),
        "features": sorted(item.features or ()),
        "previews": sorted(item.previews or ()),
    }


def _ensembles(spec: DiffusionPipelineSpec) -> list[str]:
    """Ensembles that need nothing but words and a picture: text to image first, then by steps, most first.

    With few steps also sound models draw different colours.
    """
    order = ("generate", "img2img", "inpaint")
    found = {(order.index(item.task), steps) for item in spec.pipelines if not item.features for steps in item.steps}
    return [f"{order[task]}_{steps}_pipeline" for task, steps in sorted(found, key=lambda item: (item[0], -item[1]))]


def _json(value: JsonObject) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))

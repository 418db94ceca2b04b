"""`diffusion-operator plan`: print what applying a file would do, to the cluster where there is one."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from diffusion_contract.enums import Stage
from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator import naming
from diffusion_operator.errors import BadInputError, UnavailableError
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.kube_client import KubeClient, Reference, connect
from diffusion_operator.preview import ClusterSnapshot, Preview, PreviewBuild, preview
from diffusion_operator.reconcile import PipelineKey, Reconciler
from diffusion_operator.settings import Settings
from diffusion_operator.views.job import JobView

VERB_SYMBOLS = {"create": "+", "change": "~", "remove": "-"}
MINUTE = 60


@dataclass(frozen=True)
class ClusterOptions:
    """Options that name the cluster and the namespace."""

    namespace: str
    kubeconfig: str | None
    offline: bool


def render_previews(documents: Sequence[JsonObject], options: ClusterOptions, *, as_json: bool) -> str:
    """The answer for every pipeline.

    Raises:
        BadInputError: a kubeconfig was named and cannot be used.
        UnavailableError: there is a cluster and it does not answer.
    """
    pipelines = asyncio.run(previews(documents, options))
    if as_json:
        return json.dumps([asdict(pipeline) for pipeline in pipelines], indent=2)
    return "\n\n".join("\n".join(_lines(pipeline)) for pipeline in pipelines)


async def previews(documents: Sequence[JsonObject], options: ClusterOptions) -> list[Preview]:
    """The preview of each; against the cluster where one is configured."""
    if options.offline:
        return [await _preview(None, item, options) for item in documents]
    try:
        async with connect(options.kubeconfig) as client:
            return [await _preview(client, item, options) for item in documents]
    except BadInputError:
        if options.kubeconfig is not None:
            raise
        return [await _preview(None, item, options) for item in documents]
    except UnavailableError as error:
        raise UnavailableError(f"{error} Give --offline to plan without a cluster.") from error


async def _preview(client: KubeClient | None, document: JsonObject, options: ClusterOptions) -> Preview:
    head = document.get("metadata", {})
    key = PipelineKey(head.get("namespace", options.namespace), head.get("name", "unnamed"))
    spec = DiffusionPipelineSpec.model_validate(document["spec"])
    if client is None:
        return preview(None, str(key), spec)
    observed = await Reconciler(client, Settings("", "")).observe(key, spec)
    jobs = await client.select(Reference("Job", key.namespace), naming.MANAGED_SELECTOR)
    return preview(ClusterSnapshot(observed, tuple(map(JobView.parse, jobs))), str(key), spec)


def _lines(pipeline: Preview) -> Iterator[str]:
    yield f"DiffusionPipeline {pipeline.pipeline}" + ("" if pipeline.live else " (offline)")
    if pipeline.objection:
        yield f"  Rejected by the operator: {pipeline.objection}"
        return
    for build in pipeline.builds:
        sign, verb = ("=", "reuse") if build.reused else ("+", "build")
        yield f"  {sign} {verb:6} {_title(build):40}{_duration(build.seconds) if not build.reused else ''}".rstrip()
    for change in pipeline.changes:
        note = f"  ({change.note})" if change.note else ""
        yield f"  {VERB_SYMBOLS[change.verb]} {change.verb:6} {change.kind} {change.name}{note}"
    yield _summary(pipeline)


def _title(build: PreviewBuild) -> str:
    return " ".join(filter(None, (build.stage, build.component, build.sku and f"for {build.sku}")))


def _summary(pipeline: Preview) -> str:
    engines = [build for build in pipeline.builds if build.stage == Stage.COMPILE]
    new = sum(not build.reused for build in engines)
    built = sum(not build.reused for build in pipeline.builds)
    bound = "at most " if pipeline.upper_limit and new else ""
    verbs = ", ".join(f"{sum(item.verb == verb for item in pipeline.changes)} to {verb}" for verb in VERB_SYMBOLS)
    time = "nothing to build"
    if built:
        estimate = f"takes {_duration(pipeline.seconds)}"
        time = estimate if pipeline.seconds else "nothing like it was built before: time unknown"
    return f"Plan: {bound}{new} of {len(engines)} engines to build ({bound}{built} Jobs), {time}; objects: {verbs}."


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"about {seconds:.0f} s" if seconds < 2 * MINUTE else f"about {seconds / MINUTE:.0f} min"

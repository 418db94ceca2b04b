"""`diffusion-operator plan`: look at the cluster where there is one, and tell what would happen."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator import naming
from diffusion_operator.cluster import Cluster, Reference, connect
from diffusion_operator.errors import BadInputError, UnavailableError
from diffusion_operator.preview import Build, Preview, Seen, preview
from diffusion_operator.reconcile import Key, Reconciler
from diffusion_operator.settings import Settings

JsonObject = dict[str, Any]
SIGNS = {"create": "+", "change": "~", "remove": "-"}
MINUTE = 60


@dataclass(frozen=True)
class Where:
    """Which cluster and namespace."""

    namespace: str
    kubeconfig: str | None
    offline: bool


def text(documents: Sequence[JsonObject], where: Where, *, as_json: bool) -> str:
    """The answer for every pipeline.

    Raises:
        BadInputError: a kubeconfig was named and cannot be used.
        UnavailableError: there is a cluster and it does not answer.
    """
    found = asyncio.run(previews(documents, where))
    if as_json:
        return json.dumps([item.as_json() for item in found], indent=2)
    return "\n\n".join("\n".join(_lines(item)) for item in found)


async def previews(documents: Sequence[JsonObject], where: Where) -> list[Preview]:
    """What would happen to each; against the cluster where one is configured."""
    if where.offline:
        return [await _preview(None, item, where) for item in documents]
    try:
        async with connect(where.kubeconfig) as cluster:
            return [await _preview(cluster, item, where) for item in documents]
    except BadInputError:
        if where.kubeconfig is not None:
            raise
        return [await _preview(None, item, where) for item in documents]
    except UnavailableError as error:
        raise UnavailableError(f"{error} Give --offline to plan without a cluster.") from error


async def _preview(cluster: Cluster | None, document: JsonObject, where: Where) -> Preview:
    head = document.get("metadata", {})
    key = Key(head.get("namespace", where.namespace), head.get("name", "unnamed"))
    spec = DiffusionPipelineSpec.model_validate(document["spec"])
    if cluster is None:
        return preview(None, str(key), spec)
    observed = await Reconciler(cluster, Settings("", "")).look(key, spec)
    jobs = await cluster.select(Reference("Job", key.namespace), naming.MANAGED_SELECTOR)
    return preview(Seen(observed, tuple(jobs)), str(key), spec)


def _lines(found: Preview) -> Iterator[str]:
    yield f"DiffusionPipeline {found.pipeline}" + ("" if found.live else " (no cluster was looked at)")
    if found.objection:
        yield f"  The operator would refuse it: {found.objection}"
        return
    for build in found.builds:
        sign, verb = ("=", "reuse") if build.reused else ("+", "build")
        yield f"  {sign} {verb:6} {_title(build):40}{_duration(build.seconds) if not build.reused else ''}".rstrip()
    for change in found.changes:
        note = f"  ({change.note})" if change.note else ""
        yield f"  {SIGNS[change.verb]} {change.verb:6} {change.kind} {change.name}{note}"
    yield _summary(found)


def _title(build: Build) -> str:
    return " ".join(filter(None, (build.stage, build.component, build.sku and f"for {build.sku}")))


def _summary(found: Preview) -> str:
    engines = [build for build in found.builds if build.stage == "compile"]
    new = sum(not build.reused for build in engines)
    built = sum(not build.reused for build in found.builds)
    most = "at most " if found.upper_limit and new else ""
    verbs = ", ".join(f"{sum(item.verb == verb for item in found.changes)} to {verb}" for verb in SIGNS)
    if built == 0:
        time = "nothing to build"
    else:
        time = (
            f"takes {_duration(found.seconds)}" if found.seconds else "nothing like it was built before: time unknown"
        )
    return f"Plan: {most}{new} of {len(engines)} engines to build ({most}{built} Jobs), {time}; objects: {verbs}."


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"about {seconds:.0f} s" if seconds < 2 * MINUTE else f"about {seconds / MINUTE:.0f} min"

"""The pipeline that test_canary.py changes, and the specs that it changes to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.support.cluster.kube import Kube, Object, condition, eventually
from tests.support.cluster.library import STORE, USE_STORE
from tests.support.cluster.pipelines import BUILD_SECONDS, describe_namespace, example, wait_ready
from tests.support.cluster.repositories import denoiser

if TYPE_CHECKING:
    from tests.support.cluster.library import Library

PROMPTS = [
    {"prompt": "a red circle on a blue background", "seed": 1, "steps": 4},
    {"prompt": "a large yellow square on a green background", "seed": 2, "steps": 4},
]
SHORT, LONG = [{"weight": 50, "pause": "2s"}], [{"weight": 50, "pause": "10m"}]
# Two processors serve, build and ask at once: how long an answer takes says little here.
ROLLOUT: Object = {
    "strategy": "Canary",
    "steps": SHORT,
    "progressDeadline": "3m",
    "analysis": {
        "interval": "2s",
        "deadline": "5m",
        "minRequests": 5,
        "maxP95Ratio": 100,
        "maxStepLatencyRatio": 100,
        "quality": {"prompts": PROMPTS},
    },
}
SMALL, LARGE = 64, 128
_PIPELINES = [{"task": "generate", "steps": [4]}]


def sizes(largest: int) -> Object:
    """spec.shapes."""
    side = {"min": SMALL, "opt": SMALL, "max": largest}
    return {"height": side, "width": side}


def using(name: str) -> Object:
    """spec.model with another denoiser."""
    repo, revision = denoiser(name)
    return {"components": {"denoiser": {"source": {"huggingFace": {"repo": repo, "revision": revision}}}}}


def changes(**spec: Any) -> Object:  # noqa: ANN401 - fields of a spec
    """A good spec's difference from the one that is served first, with these fields."""
    fields: Object = {
        "model": using("few-steps"),
        "serving": {"batching": {"maxQueueDelay": "0us"}},
        "shapes": sizes(LARGE),
        "targets": [{"name": "cpu"}],
    }
    return merged(fields, spec)


def good(**spec: Any) -> Object:  # noqa: ANN401 - fields of a spec
    """The same as a patch, from whatever spec there was before."""
    rollout = {"rollbackTo": None} | {name: ROLLOUT[name] for name in ("steps", "progressDeadline", "analysis")}
    return merged(changes(rollout=rollout), spec)


def merged(below: Object, above: Object) -> Object:
    """Both; where they disagree, what is above."""
    both = {name: merged(below[name], above[name]) for name in above if isinstance(below.get(name), dict)}
    return below | above | both


def pipeline(name: str = "shapes", **spec: Any) -> Object:  # noqa: ANN401 - fields of a spec
    """examples/pipeline.yaml with one tier, on the claim `store`, with canaries."""
    document = example(name, pipelines=_PIPELINES, rollout=ROLLOUT, storage=USE_STORE)
    return document | {"spec": merged(document["spec"], spec)}


def begin(kube: Kube, library: Library) -> Kube:
    """Apply the pipeline, and beside it one for each of its bad canaries; returns when nothing is to be fetched."""
    kube.apply(STORE)
    library.fill(kube)
    bad = _bad()
    kube.apply(pipeline(), *(pipeline(name, **spec) for name, spec in bad.items()))
    sources = 1 + len({json.dumps(spec["model"]) for spec in bad.values()})
    eventually(lambda: _fetched(kube) == sources, BUILD_SECONDS, lambda: describe_namespace(kube))
    return kube


def finish(kube: Kube) -> Kube:
    """Delete each bad one as soon as the store has what it needs; returns when the pipeline serves."""
    bad = set(_bad())

    def is_deleted() -> bool:
        for name in [name for name in bad if _is_built(kube, name)]:
            # Its server would take the processors that the others build with.
            kube.delete("dp", name, wait=False)
            bad.remove(name)
        return not bad

    eventually(is_deleted, BUILD_SECONDS, lambda: describe_namespace(kube))
    wait_ready(kube)
    return kube


def _bad() -> dict[str, Object]:
    return {
        "wrong-colours": changes(model=using("wrong-colours")),
        "only-small": changes(shapes=sizes(SMALL)),
    }


def _fetched(kube: Kube) -> int:
    """How many sources are in the store."""
    return sum(job["status"].get("succeeded", 0) for job in kube.list("jobs", "diffusion-operator.io/stage=fetch"))


def _is_built(kube: Kube, name: str) -> bool:
    """The repository is there, and passed parity."""
    return condition(kube.get("dp", name), "RepositoryReady").get("status") == "True"

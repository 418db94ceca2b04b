"""Events about a pipeline."""

from dataclasses import dataclass

from diffusion_contract.limits import MAX_MESSAGE
from diffusion_operator import digests, naming
from diffusion_operator.api import API_VERSION, KIND
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.common import Owner


@dataclass(frozen=True)
class PendingEvent:
    """An Event that is sent once for each generation of the spec."""

    warning: bool
    reason: str
    message: str


def event_manifest(pending: PendingEvent, owner: Owner, generation: int, now: str) -> JsonObject:
    """The Event. Its name is a digest of its content, so sending it again for the same generation changes nothing.

    Args:
        pending: the Event.
        owner: the pipeline that it is about.
        generation: of the spec that it is about.
        now: RFC 3339 time.
    """
    identity = digests.json_digest([owner.uid, generation, pending.reason, pending.message])[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{owner.name}.{identity}", "namespace": owner.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": owner.name,
            "namespace": owner.namespace,
            "uid": owner.uid,
        },
        "type": "Warning" if pending.warning else "Normal",
        "reason": pending.reason,
        "message": pending.message[:MAX_MESSAGE],
        "source": {"component": naming.MANAGER},
        "reportingComponent": naming.MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }

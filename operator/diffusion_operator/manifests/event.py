"""Events about a pipeline."""

from dataclasses import dataclass

from diffusion_operator import digests, naming
from diffusion_operator.api import API_VERSION, KIND
from diffusion_operator.manifests.common import JsonObject, Owner

MAX_MESSAGE = 1000


@dataclass(frozen=True)
class EventNote:
    """What is worth telling once."""

    warning: bool
    reason: str
    message: str


def event(note: EventNote, owner: Owner, generation: int, now: str) -> JsonObject:
    """The Event. Its name holds what it says, so saying it again for the same generation changes nothing.

    Args:
        note: what is told.
        owner: the pipeline that it is about.
        generation: of the spec that it is about.
        now: RFC 3339 time.
    """
    identity = digests.of([owner.uid, generation, note.reason, note.message])[:16]
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
        "type": "Warning" if note.warning else "Normal",
        "reason": note.reason,
        "message": note.message[:MAX_MESSAGE],
        "source": {"component": naming.MANAGER},
        "reportingComponent": naming.MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }

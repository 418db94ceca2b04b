"""Fields that the API server dropped since the schema has no such field.

It does so before anything else sees the object: neither admission policies nor `managedFields` know of them. What
`kubectl apply` sent is kept in an annotation, though.
"""

from collections.abc import Iterator, Mapping

from diffusion_contract.documents import unknown_fields
from diffusion_operator.conditions import Reason
from diffusion_operator.json_objects import JsonObject, parse_json_object
from diffusion_operator.manifests.event import PendingEvent

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def dropped_fields_text(annotations: Mapping[str, str]) -> str:
    """What a person should know about fields that were dropped; empty when none are known."""
    spec = parse_json_object(annotations.get(LAST_APPLIED)).get("spec")
    fields = unknown_fields(spec)
    if not fields:
        return ""
    return (
        f"The manifest that kubectl applied last has fields that do not exist, and the API server dropped them: "
        f"{', '.join(fields)}. Correct them and apply again; diffusion-operator validate names them, too."
    )


def dropped_fields_events(annotations: Mapping[str, str], status: JsonObject) -> Iterator[PendingEvent]:
    """A Warning, unless the present status says the same already."""
    text = dropped_fields_text(annotations)
    messages = [str(entry.get("message")) for entry in status.get("conditions", []) if isinstance(entry, dict)]
    if text and not any(text in message for message in messages):
        yield PendingEvent(warning=True, reason=Reason.UNKNOWN_FIELDS, message=text)

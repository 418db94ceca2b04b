"""What every Kubernetes object has: metadata and conditions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from diffusion_operator import naming
from diffusion_operator.json_objects import JsonObject, as_object, as_objects, as_text


@dataclass(frozen=True)
class ConditionView:
    """One condition of an object's status.

    Attributes:
        changed_at: last transition time, RFC 3339; empty when it is missing.
    """

    type: str
    status: str
    reason: str
    message: str
    changed_at: str

    @property
    def is_true(self) -> bool:
        """Whether the status is `True`."""
        return self.status == "True"


@dataclass(frozen=True)
class ObjectView:
    """One observed object.

    Attributes:
        created_at: RFC 3339; empty when it is missing.
        owner_uids: UIDs of the owner references.
        manifest: the object as the API server returned it.
    """

    kind: str
    name: str
    namespace: str
    uid: str
    resource_version: str
    generation: int
    created_at: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner_uids: frozenset[str]
    terminating: bool
    conditions: tuple[ConditionView, ...]
    manifest: JsonObject = field(repr=False)

    @property
    def target(self) -> str | None:
        """Target of the pipeline that the object serves."""
        return self.labels.get(naming.TARGET)

    @property
    def revision(self) -> str:
        """Revision that the object belongs to; empty for objects of no revision."""
        return self.labels.get(naming.REVISION, "")

    def is_owned_by(self, uid: str) -> bool:
        """False for objects of a deleted pipeline of the same name that Kubernetes has not yet collected."""
        return uid in self.owner_uids

    def condition(self, type_: str) -> ConditionView | None:
        """The condition of this type, when the status has one."""
        return next((condition for condition in self.conditions if condition.type == type_), None)


View = TypeVar("View", bound=ObjectView)


def base_fields(kind: str, manifest: JsonObject) -> dict[str, Any]:
    """Fields of an `ObjectView`."""
    metadata = manifest["metadata"]
    owners, status = as_objects(metadata.get("ownerReferences")), as_object(manifest.get("status"))
    return {
        "kind": kind,
        "name": metadata["name"],
        "namespace": metadata.get("namespace", ""),
        "uid": metadata.get("uid", ""),
        "resource_version": metadata.get("resourceVersion", ""),
        "generation": metadata.get("generation", 0),
        "created_at": as_text(metadata.get("creationTimestamp")),
        "labels": _texts(metadata.get("labels")),
        "annotations": _texts(metadata.get("annotations")),
        "owner_uids": frozenset(as_text(owner.get("uid")) for owner in owners),
        "terminating": metadata.get("deletionTimestamp") is not None,
        "conditions": tuple(map(_condition, as_objects(status.get("conditions")))),
        "manifest": manifest,
    }


def parse_object(kind: str, manifest: JsonObject) -> ObjectView:
    """View of an object of which only the metadata matters."""
    return ObjectView(**base_fields(kind, manifest))


def newest_first(views: Iterable[View]) -> list[View]:
    """Sorted by creation time, newest first."""
    return sorted(views, key=lambda view: view.created_at, reverse=True)


def rfc3339(time: datetime) -> str:
    """The time as Kubernetes writes it, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str | None) -> datetime:
    """A Kubernetes time; the epoch when there is none, or none that can be read."""
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _texts(value: Any) -> dict[str, str]:  # noqa: ANN401 - any JSON value
    return {key: text for key, text in as_object(value).items() if isinstance(text, str)}


def _condition(entry: JsonObject) -> ConditionView:
    return ConditionView(
        type=as_text(entry.get("type")),
        status=as_text(entry.get("status")),
        reason=as_text(entry.get("reason")),
        message=as_text(entry.get("message")),
        changed_at=as_text(entry.get("lastTransitionTime")),
    )

"""Actions of a plan; the I/O layer executes them in order."""

from dataclasses import dataclass

from diffusion_operator.json_objects import JsonObject
from diffusion_operator.views.base import ObjectView


@dataclass(frozen=True)
class Apply:
    """Server-side apply of an object that the pipeline controls.

    Attributes:
        initial: fields of the spec that only a new object gets.
    """

    body: JsonObject
    initial: JsonObject | None = None


@dataclass(frozen=True)
class StartJob:
    """Create a Job, or join the one that already has its name."""

    body: JsonObject


@dataclass(frozen=True)
class RestartJob:
    """Delete a Job as observed, then create it again."""

    name: str
    uid: str
    resource_version: str
    body: JsonObject


@dataclass(frozen=True)
class RecordResult:
    """Record a Job's result on the Job, since its pod may go.

    Attributes:
        result: JSON text.
        labels: stage, component and SKU, for metrics; empty where the stage has none.
    """

    name: str
    result: str
    labels: tuple[str, str, str] = ("", "", "")


@dataclass(frozen=True)
class ReleaseJob:
    """Give up this pipeline's claim on a Job that others still need."""

    name: str
    label: str
    owner_uid: str


@dataclass(frozen=True)
class DeleteJob:
    """Delete a Job that only this pipeline needed, unless another joined since it was observed."""

    name: str
    uid: str
    resource_version: str


@dataclass(frozen=True)
class EndJob:
    """End a Job whose builder has ended, and whose pod would run on."""

    name: str
    resource_version: str


@dataclass(frozen=True)
class AdmitJobs:
    """Let compile Jobs of a SKU start, of whatever pipeline, as far as there is room."""

    sku: str


@dataclass(frozen=True)
class Scale:
    """Set the number of pods of a revision's Deployment."""

    name: str
    replicas: int


@dataclass(frozen=True)
class Annotate:
    """Write an annotation of a revision's Deployment."""

    name: str
    key: str
    value: str


@dataclass(frozen=True)
class DeleteObject:
    """Delete an object that this pipeline controls."""

    kind: str
    name: str
    uid: str


def delete_observed(view: ObjectView) -> DeleteObject:
    """Delete this object, and no later one of its name."""
    return DeleteObject(view.kind, view.name, view.uid)


Action = (
    Apply
    | StartJob
    | RestartJob
    | RecordResult
    | EndJob
    | AdmitJobs
    | ReleaseJob
    | DeleteJob
    | Scale
    | Annotate
    | DeleteObject
)

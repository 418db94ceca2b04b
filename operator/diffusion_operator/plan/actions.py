"""What a plan asks for; the I/O layer carries it out in order."""

from dataclasses import dataclass
from typing import Any

JsonObject = dict[str, Any]


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
    """Delete a Job as it was seen, then create it anew."""

    name: str
    uid: str
    resource_version: str
    body: JsonObject


@dataclass(frozen=True)
class KeepResult:
    """Keep a Job's result on the Job, since its pod may go.

    Attributes:
        made: stage, component and SKU; empty where the stage has none.
    """

    name: str
    result: str
    made: tuple[str, str, str] = ("", "", "")


@dataclass(frozen=True)
class LeaveJob:
    """Others still need this Job: only this pipeline's claim on it goes."""

    name: str
    membership: str
    owner_uid: str


@dataclass(frozen=True)
class DeleteJob:
    """Delete a Job that only this pipeline needed, unless somebody joined since it was seen."""

    name: str
    uid: str
    resource_version: str


@dataclass(frozen=True)
class Admit:
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
class Remove:
    """Delete an object that this pipeline controls."""

    kind: str
    name: str
    uid: str


def remove(kind: str, item: JsonObject) -> Remove:
    """Delete this object, and no later one of its name."""
    return Remove(kind, item["metadata"]["name"], item["metadata"]["uid"])


Action = Apply | StartJob | RestartJob | KeepResult | Admit | LeaveJob | DeleteJob | Scale | Annotate | Remove

"""Conditions: positive types, one list of reasons, messages that say what to do."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from diffusion_operator.api.status import Condition

MAX_MESSAGE = 2000


class Type(StrEnum):
    """Aspects of a pipeline, in the order in which they come true."""

    ACCEPTED = "Accepted"
    ENGINES_READY = "EnginesReady"
    REPOSITORY_READY = "RepositoryReady"
    AVAILABLE = "Available"
    ROLLOUT_COMPLETE = "RolloutComplete"
    READY = "Ready"


class Reason(StrEnum):
    """Every reason that a condition or a Warning can have."""

    # Nothing is wrong.
    VALID = "Valid"
    ENGINES_BUILT = "EnginesBuilt"
    REPOSITORY_BUILT = "RepositoryBuilt"
    SERVING = "Serving"
    COMPLETE = "Complete"
    EXPERIMENT_RUNNING = "ExperimentRunning"
    READY = "Ready"

    # On the way.
    WAITING_FOR_STORAGE = "WaitingForStorage"
    FETCHING = "Fetching"
    EXPORTING = "Exporting"
    QUEUED = "Queued"
    WAITING_FOR_GPU = "WaitingForGPU"
    COMPILING = "Compiling"
    WAITING_FOR_ENGINES = "WaitingForEngines"
    ASSEMBLING = "Assembling"
    CHECKING = "Checking"
    WAITING_FOR_REPOSITORY = "WaitingForRepository"
    STARTING = "Starting"
    ROLLING_OUT = "RollingOut"
    CANARY_PROGRESSING = "CanaryProgressing"
    EXPERIMENT_STARTING = "ExperimentStarting"
    REMOVING_OLD_REVISION = "RemovingOldRevision"
    SUSPENDED = "Suspended"

    # Somebody has to do something: the operator's own findings.
    INVALID_SPEC = "InvalidSpec"
    NAME_TAKEN = "NameTaken"
    OBJECT_REFUSED = "ObjectRefused"
    STORAGE_NOT_FOUND = "StorageNotFound"
    STORAGE_NOT_SHARED = "StorageNotShared"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    CONTAINER_CONFIG_ERROR = "ContainerConfigError"
    OUT_OF_MEMORY = "OutOfMemory"
    TIMED_OUT = "TimedOut"
    BUILD_FAILED = "BuildFailed"
    EVIDENCE_LOST = "EvidenceLost"
    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    VERIFY_FAILED = "VerifyFailed"
    NOT_READY = "NotReady"
    CANARY_REJECTED = "CanaryRejected"
    REVISION_NOT_KEPT = "RevisionNotKept"
    VARIANT_FAILED = "VariantFailed"

    # Only told, in a Warning: serving is tried all the same.
    GPU_TOO_SMALL = "GPUTooSmall"


@dataclass(frozen=True)
class Finding:
    """One condition before it is compared with what the status said.

    `reason` is a Reason, or the reason that the builder gave for a failed stage. `lasting` is the message without
    what changes from one retry to the next, for Events; empty when that is all of it.
    """

    type: Type
    ok: bool
    reason: str
    message: str
    lasting: str = ""


PROGRESS = frozenset(
    {
        Reason.WAITING_FOR_STORAGE,
        Reason.FETCHING,
        Reason.EXPORTING,
        Reason.QUEUED,
        Reason.WAITING_FOR_GPU,
        Reason.COMPILING,
        Reason.WAITING_FOR_ENGINES,
        Reason.ASSEMBLING,
        Reason.CHECKING,
        Reason.WAITING_FOR_REPOSITORY,
        Reason.STARTING,
        Reason.ROLLING_OUT,
        Reason.CANARY_PROGRESSING,
        Reason.EXPERIMENT_STARTING,
        Reason.REMOVING_OLD_REVISION,
        Reason.SUSPENDED,
    }
)


def is_trouble(finding: Finding) -> bool:
    """True when a person has to do something."""
    return not finding.ok and finding.reason not in PROGRESS


def ready(findings: Iterable[Finding]) -> Finding:
    """`Ready` sums up the others: trouble first, otherwise the first that is not yet true."""
    failing = [finding for finding in findings if not finding.ok]
    if not failing:
        return Finding(Type.READY, ok=True, reason=Reason.READY, message="All targets serve this generation.")
    worst = next((finding for finding in failing if is_trouble(finding)), failing[0])
    return Finding(Type.READY, ok=False, reason=worst.reason, message=worst.message, lasting=worst.lasting)


def merge(findings: Iterable[Finding], before: Mapping[str, Condition], generation: int, now: str) -> list[Condition]:
    """Conditions for the status; the transition time moves only when the status value does.

    Args:
        findings: what is seen now.
        before: conditions of the present status, by type.
        generation: of the spec that the findings are about.
        now: RFC 3339 time.
    """
    return [_merged(finding, before.get(finding.type), generation, now) for finding in findings]


def _merged(finding: Finding, before: Condition | None, generation: int, now: str) -> Condition:
    status: Literal["True", "False"] = "True" if finding.ok else "False"
    since = before.last_transition_time if before is not None and before.status == status else now
    return Condition(
        type=finding.type,
        status=status,
        reason=finding.reason,
        message=shortened(finding.message, MAX_MESSAGE),
        observed_generation=generation,
        last_transition_time=since,
    )


def shortened(text: str, limit: int) -> str:
    """The text, cut with an ellipsis when it is longer than the limit."""
    return text if len(text) <= limit else text[: limit - 1] + "…"

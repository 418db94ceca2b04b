"""Conditions: positive types, one list of reasons, messages that say what to do."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from diffusion_contract.limits import MAX_CONDITION_MESSAGE, MAX_MESSAGE
from diffusion_operator.api.status import Condition


class ConditionType(StrEnum):
    """Aspects of a pipeline, in the order in which they come true."""

    ACCEPTED = "Accepted"
    ENGINES_READY = "EnginesReady"
    REPOSITORY_READY = "RepositoryReady"
    AVAILABLE = "Available"
    ROLLOUT_COMPLETE = "RolloutComplete"
    API_AVAILABLE = "APIAvailable"
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
    CHECKING_PARITY = "CheckingParity"
    WAITING_FOR_REPOSITORY = "WaitingForRepository"
    STARTING = "Starting"
    ROLLING_OUT = "RollingOut"
    MAKING_ROOM = "MakingRoom"
    CANARY_PROGRESSING = "CanaryProgressing"
    EXPERIMENT_STARTING = "ExperimentStarting"
    REMOVING_OLD_REVISION = "RemovingOldRevision"
    SUSPENDED = "Suspended"

    # Somebody has to do something: the operator's own reasons.
    INVALID_SPEC = "InvalidSpec"
    NAME_CONFLICT = "NameConflict"
    OBJECT_REJECTED = "ObjectRejected"
    STORAGE_NOT_FOUND = "StorageNotFound"
    STORAGE_NOT_SHARED = "StorageNotShared"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    CONTAINER_CONFIG_ERROR = "ContainerConfigError"
    OUT_OF_MEMORY = "OutOfMemory"
    TIMED_OUT = "TimedOut"
    BUILD_FAILED = "BuildFailed"
    RESULT_LOST = "ResultLost"
    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    VERIFY_FAILED = "VerifyFailed"
    NOT_READY = "NotReady"
    CANARY_REJECTED = "CanaryRejected"
    REVISION_NOT_IN_HISTORY = "RevisionNotInHistory"
    VARIANT_FAILED = "VariantFailed"

    # Only told, in a Warning: serving is tried all the same.
    UNKNOWN_FIELDS = "UnknownFields"
    INSUFFICIENT_GPU_MEMORY = "InsufficientGPUMemory"


@dataclass(frozen=True)
class ConditionUpdate:
    """One condition before it is merged with the present status.

    `reason` is a Reason, or the reason that the builder gave for a failed stage. `event_message` is the message without
    what changes from one retry to the next, for Events; empty when it is the whole message.
    """

    type: ConditionType
    reason: str
    message: str
    ok: bool = False
    event_message: str = ""


PROGRESS_REASONS = frozenset(
    {
        Reason.WAITING_FOR_STORAGE,
        Reason.FETCHING,
        Reason.EXPORTING,
        Reason.QUEUED,
        Reason.WAITING_FOR_GPU,
        Reason.COMPILING,
        Reason.WAITING_FOR_ENGINES,
        Reason.ASSEMBLING,
        Reason.CHECKING_PARITY,
        Reason.WAITING_FOR_REPOSITORY,
        Reason.STARTING,
        Reason.ROLLING_OUT,
        Reason.MAKING_ROOM,
        Reason.CANARY_PROGRESSING,
        Reason.EXPERIMENT_STARTING,
        Reason.REMOVING_OLD_REVISION,
        Reason.SUSPENDED,
    }
)


def needs_action(update: ConditionUpdate) -> bool:
    """True when a person has to do something."""
    return not update.ok and update.reason not in PROGRESS_REASONS


def ready_condition(updates: Iterable[ConditionUpdate]) -> ConditionUpdate:
    """`Ready` sums up the others: trouble first, otherwise the first that is not yet true."""
    failing = [update for update in updates if not update.ok]
    if not failing:
        return ConditionUpdate(ConditionType.READY, Reason.READY, "All targets serve this generation.", ok=True)
    worst = next((update for update in failing if needs_action(update)), failing[0])
    return replace(worst, type=ConditionType.READY)


def merge_conditions(
    updates: Iterable[ConditionUpdate], previous: Mapping[str, Condition], generation: int, now: str
) -> list[Condition]:
    """Conditions for the status; the transition time moves only when the status value does.

    Args:
        updates: of this pass.
        previous: conditions of the present status, by type.
        generation: of the spec that the updates describe.
        now: RFC 3339 time.
    """
    return [_condition(update, previous.get(update.type), generation, now) for update in updates]


def _condition(update: ConditionUpdate, previous: Condition | None, generation: int, now: str) -> Condition:
    status: Literal["True", "False"] = "True" if update.ok else "False"
    since = previous.last_transition_time if previous is not None and previous.status == status else now
    return Condition(
        type=update.type,
        status=status,
        reason=update.reason,
        message=truncated(update.message, MAX_CONDITION_MESSAGE),
        observed_generation=generation,
        last_transition_time=since,
    )


def truncated(text: str, limit: int = MAX_MESSAGE) -> str:
    """The text, cut with an ellipsis when it is longer than the limit."""
    return text if len(text) <= limit else text[: limit - 1] + "…"

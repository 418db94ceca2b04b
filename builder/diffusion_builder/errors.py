"""What can go wrong in a stage, each with a reason, a message that says what to do, and an exit code."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """Exit codes of every stage; the operator's Jobs decide by them whether a retry makes sense."""

    OK = 0
    NOT_READY = 1
    BAD_INPUT = 64
    UNAVAILABLE = 69
    INTERNAL = 70
    STORE = 74


class Reason(StrEnum):
    """CamelCase reasons that end up in conditions of the custom resource."""

    INVALID_ARGUMENT = "InvalidArgument"
    INVALID_SPEC = "InvalidSpec"
    # sources
    SOURCE_NOT_FOUND = "SourceNotFound"
    REPOSITORY_NOT_FOUND = "RepositoryNotFound"
    REVISION_NOT_FOUND = "RevisionNotFound"
    ACCESS_DENIED = "AccessDenied"
    HUB_UNREACHABLE = "HubUnreachable"
    UNSUPPORTED_PIPELINE = "UnsupportedPipeline"
    UNSUPPORTED_COMPONENT = "UnsupportedComponent"
    MISSING_COMPONENT = "MissingComponent"
    MISSING_FILE = "MissingFile"
    PICKLE_ONLY = "PickleOnly"
    REMOTE_CODE = "RemoteCode"
    UNSAFE_PATH = "UnsafePath"
    INVALID_WEIGHTS = "InvalidWeights"
    INVALID_CONFIG = "InvalidConfig"
    INVALID_ARCHIVE = "InvalidArchive"
    GIT_LFS_POINTER = "GitLFSPointer"
    UNSUPPORTED_LORA = "UnsupportedLora"
    TOO_LARGE = "TooLarge"
    DIGEST_MISMATCH = "DigestMismatch"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    SOURCE_CHANGED = "SourceChanged"
    # building
    EXPORT_FAILED = "ExportFailed"
    VERIFICATION_FAILED = "VerificationFailed"
    COMPILE_FAILED = "CompileFailed"
    UNSUPPORTED_OPERATOR = "UnsupportedOperator"
    OUT_OF_MEMORY = "OutOfMemory"
    OUT_OF_GPU_MEMORY = "OutOfGPUMemory"
    NO_GPU = "NoGPU"
    WRONG_GPU = "WrongGPU"
    VERSION_MISMATCH = "VersionMismatch"
    UNSUPPORTED_SCHEDULER = "UnsupportedScheduler"
    INVALID_ENSEMBLE = "InvalidEnsemble"
    COMPONENT_MISMATCH = "ComponentMismatch"
    CHECK_FAILED = "CheckFailed"
    # the store
    ARTIFACT_NOT_FOUND = "ArtifactNotFound"
    ARTIFACT_DAMAGED = "ArtifactDamaged"
    STORE_FULL = "StoreFull"
    STORE_READ_ONLY = "StoreReadOnly"
    STORE_UNAVAILABLE = "StoreUnavailable"
    # a running server
    PROBE_FAILED = "ProbeFailed"
    SCORE_MISSING = "ScoreMissing"
    INTERNAL_ERROR = "InternalError"


class BuilderError(Exception):
    """Base of everything that is reported without a traceback.

    Args:
        reason: what kind of problem it is.
        message: one or two sentences: what was wrong, where, and what to do.
    """

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class BadInputError(BuilderError):
    """The same input can never succeed; retrying is pointless."""

    exit_code = ExitCode.BAD_INPUT


class UnavailableError(BuilderError):
    """Something outside is not there right now; trying again later is right."""

    exit_code = ExitCode.UNAVAILABLE


class StoreError(BuilderError):
    """The store cannot be read or written as it should."""

    exit_code = ExitCode.STORE


class ProbeError(BuilderError):
    """A running server does not answer as it should (yet)."""

    exit_code = ExitCode.NOT_READY

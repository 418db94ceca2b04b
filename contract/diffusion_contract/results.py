"""What a stage writes as JSON when it ends, and the operator reads from the termination message; standard library only.

Names are those of the JSON. A field that a stage adds is added only here.
"""

from collections.abc import Mapping
from typing import TypedDict

from diffusion_contract.enums import Stage


class StageResult(TypedDict, total=False):
    """What every stage reports.

    Attributes:
        stage: its name.
        digest: of the artifact that it made or found.
        sizeBytes: size of the artifact's files.
        seconds: how long the stage took.
        cached: whether the artifact was in the store already.
    """

    stage: str
    digest: str
    sizeBytes: int
    seconds: float
    cached: bool


class FetchResult(StageResult, total=False):
    """A source; `subfolders` holds the digest of each subfolder's content, `weightBytes` the size of its weights."""

    weightBytes: dict[str, int]
    pipelineClass: str
    subfolders: dict[str, str]


class ExportResult(StageResult, total=False):
    """A graph; `content` is the digest of the graph itself, the same for an export that yields the same graph again."""

    component: str
    content: str
    precision: str
    maxAbsError: float
    maxRelativeError: float


class CompileResult(StageResult, total=False):
    """An engine, and the version of the runtime that compiled it."""

    component: str
    runtime: str
    runtimeVersion: str


class AssembleResult(StageResult, total=False):
    """A Triton model repository, and what it needs of the server."""

    ensembles: list[str]
    stateSlots: int
    serverFlags: list[str]
    estimatedGPUMemoryBytes: int


class ParityResult(StageResult, total=False):
    """How near a repository's images are to those of diffusers; PSNR in dB.

    `accelerationPSNR` is that of diffusers with the repository's acceleration against diffusers without: the price;
    null without acceleration.
    """

    repository: str
    precision: str
    minPSNR: float
    worstPSNR: float
    worstLatentError: float
    accelerationPSNR: float | None
    ensembles: list[str]


class CompareResult(StageResult, total=False):
    """A verdict about the images of two servers, with the worst numbers of all pairs."""

    passed: bool
    reason: str
    message: str
    worstPSNR: float
    worstSSIM: float
    colorShift: float
    roughness: float


class StageError(TypedDict):
    """Why a stage failed: `{"error": {"reason": ..., "message": ...}}`."""

    reason: str
    message: str


_RESULTS: Mapping[Stage, type[StageResult]] = {
    Stage.FETCH: FetchResult,
    Stage.EXPORT: ExportResult,
    Stage.COMPILE: CompileResult,
    Stage.ASSEMBLE: AssembleResult,
    Stage.PARITY: ParityResult,
    Stage.COMPARE: CompareResult,
}


def result_type(stage: Stage | None) -> type[StageResult]:
    """Fields and types of a stage's result; of a stage that reports nothing of its own, those of every stage."""
    return _RESULTS.get(stage, StageResult) if stage is not None else StageResult


def reported(stage: Stage) -> tuple[str, ...]:
    """Fields that this stage reports besides those of every stage."""
    return tuple(name for name in _RESULTS[stage].__annotations__ if name not in StageResult.__annotations__)

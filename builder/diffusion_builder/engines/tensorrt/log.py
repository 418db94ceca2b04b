"""Progress and errors in the log of trtexec, with advice.

The patterns are the messages of TensorRT 10 and 11 (trtexec's own, the ONNX parser's, the builder's, and CUDA's).
Some of them are no failure by themselves: a kernel that needs too much memory is skipped, and the build continues. Such
a sign only explains a build that did fail. An overridden shape is the opposite: trtexec warns, exits with 0, and the
engine is useless.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum

from diffusion_builder.errors import BadInputError, BuilderError, Reason, StoreError, UnavailableError

_TAIL_LINES = 40
_MAX_QUOTE = 300
# `[11/23/2026-16:42:43] [E] [TRT] ` before every message.
_PREFIX = re.compile(r"^\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] \[(?P<severity>[VIWEF])\] (?:\[TRT\] )?")
# The parser writes a node over several lines: 10 as protobuf text, 11 as its name only.
_NODE_NAME = re.compile(r'^(?:Node name: |name: ")(?P<node>[^"]+)"?$')
_FAILED = re.compile(r"^&&&& FAILED ")


class Severity(IntEnum):
    """Severity of a pattern; of several, the heaviest is reported, and of equals the first."""

    # The build failed, and this may be why.
    HINT = 1
    # If the build failed, this is why.
    CAUSE = 2
    # The build is of no use, whatever the exit code is.
    FATAL = 3


@dataclass(frozen=True)
class LogPattern:
    """A message of the log and its error.

    Args:
        regex: searched in a line; its groups are filled into the message.
        error: the exit code's class.
        reason: the reason of the error.
        message: what was wrong and what to do; `{component}` and named groups are replaced.
        severity: consequence for the build.
    """

    regex: str
    error: type[BuilderError]
    reason: Reason
    message: str
    severity: Severity = Severity.CAUSE


_NO_SHAPE = (
    "{component}: the profile leaves out input {input} of the graph; TensorRT would fix its size. "
    "The graph does not fit this builder's contract: export it again with this builder."
)
_NO_MEMORY = (
    "{component}: the GPU has too little memory to build the engine{requested}. Lower the workspace, the largest batch "
    "or the largest size, and see that nothing else uses this GPU."
)
_UNSUPPORTED = (
    "{component}: TensorRT does not support operator {operator} at node {node} of the graph. "
    "A newer TensorRT may; otherwise please report it."
)
_NO_GPU = (
    "{component}: trtexec finds no GPU. Does the Job request nvidia.com/gpu, and is the node's device plugin healthy?"
)
_OLD_DRIVER = (
    "{component}: the NVIDIA driver of this node is too old for the image's CUDA, or there is none. "
    "Update the driver, or use a builder image with an older CUDA."
)
_OTHER_VERSION = (
    "{component}: a plan or cache was made with another version of TensorRT than the image's. "
    "Build and serve with images of one TensorRT version."
)

_PARSING = LogPattern(
    r"While parsing node number \d+ \[(?P<operator>\S+)(?: -> \"(?P<node>[^\"]*)\")?\]", BadInputError,
    Reason.UNSUPPORTED_OPERATOR, _UNSUPPORTED,
)  # fmt: skip

PATTERNS: tuple[LogPattern, ...] = (
    LogPattern(
        r"Dynamic dimensions required for input: (?P<input>\S+?),? but no shapes were provided",
        BadInputError, Reason.COMPILE_FAILED, _NO_SHAPE, Severity.FATAL,
    ),
    LogPattern(
        r"Automatically overriding shape", BadInputError, Reason.COMPILE_FAILED,
        _NO_SHAPE.replace("input {input}", "an input"), Severity.FATAL,
    ),
    LogPattern(
        r"Shapes is being broadcasted to (?P<bound>\w+) for tensor (?P<input>\S+)",
        BadInputError, Reason.COMPILE_FAILED,
        "{component}: the profile has no {bound} for input {input}. Please report it.", Severity.FATAL,
    ),
    LogPattern(
        r'Cannot find input tensor with name "(?P<input>[^"]+)"', BadInputError, Reason.COMPILE_FAILED,
        "{component}: the profile names an input {input} that the graph has not. Export it again with this builder.",
    ),
    LogPattern(
        r"no optimization profile has been defined|invalid or missing shape spec at profile index", BadInputError,
        Reason.COMPILE_FAILED, "{component}: an optimization profile is missing. Please report it.",
    ),
    LogPattern(
        r"Dimension mismatch for tensor (?P<input>\S+) and profile (?P<profile>\d+)", BadInputError,
        Reason.COMPILE_FAILED,
        "{component}: profile {profile} gives input {input} a size that the graph has fixed otherwise. "
        "Export it again with this builder.",
    ),
    LogPattern(
        r"Unknown option: (?P<flag>\S+)", BadInputError, Reason.VERSION_MISMATCH,
        "trtexec of this image does not know {flag}. Use a builder image with TensorRT 10 or 11.",
    ),
    LogPattern(
        r"In node -?\d+ with name: (?P<node>.*?) and operator: (?P<operator>\S+)", BadInputError,
        Reason.UNSUPPORTED_OPERATOR, _UNSUPPORTED,
    ),
    LogPattern(
        r"No importer registered for op: (?P<operator>[\w:]+)(?!.*[Aa]ttempting)", BadInputError,
        Reason.UNSUPPORTED_OPERATOR, _UNSUPPORTED, Severity.HINT,
    ),
    _PARSING,
    LogPattern(
        r"MODEL_DESERIALIZE_FAILED|Failed to parse the ONNX model", BadInputError, Reason.ARTIFACT_DAMAGED,
        "{component}: the ONNX file cannot be read. Verify the store, delete the artifact and export it again.",
    ),
    LogPattern(
        r"OutOfMemory(?: \(Requested size was (?P<bytes>\d+) bytes)?|(?i:out of memory)", BadInputError,
        Reason.OUT_OF_GPU_MEMORY, _NO_MEMORY, Severity.HINT,
    ),
    LogPattern(
        r"Requested amount of GPU memory \((?P<bytes>\d+) bytes\) could not be allocated", BadInputError,
        Reason.OUT_OF_GPU_MEMORY, _NO_MEMORY, Severity.HINT,
    ),
    LogPattern(
        r"insufficient workspace|insufficient memory on requested size of (?P<bytes>\d+)", BadInputError,
        Reason.OUT_OF_GPU_MEMORY, _NO_MEMORY.replace("Lower", "Raise or remove the limit on"), Severity.HINT,
    ),
    LogPattern(
        r"Could not find any implementation for node (?P<node>\{.*\}|[^ .]+)", BadInputError, Reason.COMPILE_FAILED,
        "{component}: TensorRT has no kernel for node {node} at these sizes on this GPU. "
        "Try other sizes or a newer TensorRT; too little free GPU memory looks the same.",
        Severity.HINT,
    ),
    LogPattern(
        r"Cannot find any available devices|no CUDA-capable device is detected|Cannot find device ID"
        r"|CUDA initialization failure with error:? 100\b|cudaError 100\b",
        UnavailableError, Reason.NO_GPU, _NO_GPU,
    ),
    LogPattern(
        r"driver version is insufficient|CUDA initialization failure with error:? 35\b|cudaError 35\b",
        UnavailableError, Reason.NO_GPU, _OLD_DRIVER,
    ),
    LogPattern(
        r"CUDA initialization failure with error:? (?P<code>\d+)", UnavailableError, Reason.NO_GPU,
        "{component}: CUDA does not start (error {code}). Look at the node's driver and device plugin.", Severity.HINT,
    ),
    LogPattern(
        r"not compatible with this version of TensorRT|[Ss]erialization version (?:mismatch|is not supported)",
        BadInputError, Reason.VERSION_MISMATCH, _OTHER_VERSION,
    ),
    LogPattern(
        r"Target GPU SM (?P<sm>\d+) is not supported by this TensorRT", BadInputError, Reason.WRONG_GPU,
        "{component}: this TensorRT does not support GPUs of compute capability {sm}. "
        "Use another target, or a builder image whose TensorRT supports it.",
    ),
    LogPattern(
        r"incompatible device, expecting compute (?P<expected>\S+) got compute (?P<actual>[\d.]+\d)", BadInputError,
        Reason.WRONG_GPU,
        "{component}: a plan is for compute capability {expected}, this GPU has {actual}: build on the target's GPU.",
    ),
    LogPattern(
        r"Saving engine to file failed|Cannot write to FileStreamWriter|No space left on device", StoreError,
        Reason.STORE_FULL, "{component}: trtexec could not write the engine. Is the store full?",
    ),
)  # fmt: skip

# Lines after which a fraction of the work is done. trtexec prints nothing while it measures kernels, most of the time.
_MILESTONES = (
    (r"^Start parsing network model", 0.02, "parse"),
    (r"^Finished parsing network model", 0.08, "parse"),
    (r"^Detected \d+ inputs? and \d+ output", 0.12, "optimize"),
    (r"^Total Activation Memory", 0.70, "optimize"),
    (r"^Engine generation completed", 0.94, "optimize"),
    (r"^Created engine with size", 0.96, "save"),
    (r"^Skipped inference phase", 1.0, "save"),
)

# Once per optimization profile: what an execution context of it allocates.
_ACTIVATIONS = re.compile(r"^Total Activation Memory: (\d+) bytes")


@dataclass(frozen=True)
class CompileProgress:
    """Progress of the build: a fraction between 0 and 1, and the phase."""

    fraction: float
    phase: str


@dataclass(frozen=True)
class _LogMatch:
    pattern: LogPattern
    groups: tuple[tuple[str, str], ...]


@dataclass
class LogReader:
    """Reads a log line by line.

    Args:
        component: which one, for messages.
        activations: bytes that an execution context of each optimization profile allocates, as far as the log says.
    """

    component: str
    step: CompileProgress = CompileProgress(0.0, "start")
    activations: list[int] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))
    _log_match: _LogMatch | None = None
    _last_error: str = ""

    def feed(self, line: str) -> bool:
        """Take one line in; returns whether the step changed."""
        text = line.rstrip()
        self.tail.append(text)
        prefix = _PREFIX.match(text)
        message = text[prefix.end() :] if prefix else text
        if prefix and prefix["severity"] in "EF" and message:
            self._last_error = message
        self._match(message)
        if match := _ACTIVATIONS.match(message):
            self.activations.append(int(match[1]))
        return self._advance(message)

    @property
    def is_fatal(self) -> bool:
        """Whether the build is of no use even if it ends well, so that it may be ended now."""
        return self._log_match is not None and self._log_match.pattern.severity is Severity.FATAL

    def error(self, exit_code: int) -> BuilderError | None:
        """The error of a build that has ended, or None for a good one.

        Args:
            exit_code: of the process; negative for a signal, as in `subprocess`.
        """
        if self._log_match is not None and (exit_code != 0 or self.is_fatal):
            return self._explain(self._log_match)
        if exit_code == 0:
            return None
        if exit_code == -9:  # noqa: PLR2004 - SIGKILL: never sent from here to a build that is not is_fatal
            return BadInputError(
                Reason.OUT_OF_MEMORY,
                f"{self.component}: trtexec was killed, most likely by the memory limit of this pod. "
                "Raise the memory limit of the engine Jobs.",
            )
        error_text = self._last_error or next(
            (line for line in reversed(self.tail) if not _FAILED.match(line) and line), ""
        )
        return BadInputError(
            Reason.COMPILE_FAILED,
            f"{self.component}: trtexec failed with exit code {exit_code}: {error_text[:_MAX_QUOTE]}",
        )

    def _match(self, message: str) -> None:
        if (node := _NODE_NAME.match(message)) and self._log_match and self._log_match.pattern is _PARSING:
            self._log_match = _LogMatch(_PARSING, (*self._log_match.groups, ("node", node["node"])))
        for pattern in PATTERNS:
            if self._log_match is not None and pattern.severity <= self._log_match.pattern.severity:
                continue
            if match := re.search(pattern.regex, message):
                groups = {name: value or "" for name, value in match.groupdict().items()}
                self._log_match = _LogMatch(pattern, tuple(groups.items()))

    def _advance(self, message: str) -> bool:
        for pattern, fraction, phase in _MILESTONES:
            if fraction > self.step.fraction and re.search(pattern, message):
                self.step = CompileProgress(fraction, phase)
                return True
        return False

    def _explain(self, match: _LogMatch) -> BuilderError:
        values = {"component": self.component, "node": "(unnamed)", "requested": ""}
        values |= {name: value for name, value in match.groups if value}
        if requested_bytes := values.get("bytes"):
            values["requested"] = f" ({int(requested_bytes)} bytes were requested)"
        return match.pattern.error(match.pattern.reason, match.pattern.message.format(**values))

"""What the gateway is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Headers that go on to Triton's route: a trace, and what the operator's routes split traffic by.
FORWARDED_HEADERS = ("traceparent", "tracestate", "x-diffusion-revision", "x-diffusion-user")


@dataclass(frozen=True)
class PipelineAddress:
    """A model of the API.

    Args:
        name: of the pipeline.
        address: of its Triton's gRPC, or of the proxy before it, host:port.
        authority: host that requests name; empty for that of the address.
    """

    name: str
    address: str
    authority: str = ""


@dataclass(frozen=True)
class QueueLimits:
    """How much a pipeline or a key may have at a time.

    Args:
        concurrent: images that are made at a time, previews among them.
        waiting: requests that wait for that.
    """

    concurrent: int
    waiting: int


@dataclass(frozen=True)
class KeyLimits:
    """Limits of a key whose entry has none; None as much as a pipeline has.

    Args:
        concurrent: images that are made at a time, over all pipelines.
        waiting: requests that wait for that.
    """

    concurrent: int | None = None
    waiting: int | None = None


@dataclass(frozen=True)
class RequestLimits:
    """Sizes and times of one request.

    Args:
        upload_bytes: of a body.
        buffered_bytes: of all bodies that are held at a time.
        pixels: of an image that is sent or requested.
        body_seconds: until the body has arrived.
        header_seconds: until the headers have arrived.
        request_seconds: until the answer, waiting included.
        connections: that are open at a time.
    """

    upload_bytes: int = 20 << 20
    buffered_bytes: int = 128 << 20
    pixels: int = 4096 * 4096
    body_seconds: float = 30.0
    header_seconds: float = 10.0
    request_seconds: float = 120.0
    connections: int = 2048


@dataclass(frozen=True)
class ProvenanceSettings:
    """What images say about themselves besides how they were made.

    Args:
        prompt: whether the prompt is among it.
        seed: whether the seed is.
        model: whether the model's name is.
    """

    prompt: bool = False
    seed: bool = False
    model: bool = False


@dataclass(frozen=True)
class SigningSettings:
    """What images are signed with.

    Args:
        certificates: file of the chain in PEM, the signer's certificate first.
        key: file of its key in PEM.
        algorithm: by the name of C2PA, such as es256.
    """

    certificates: Path
    key: Path
    algorithm: str = "es256"


@dataclass(frozen=True)
class TracingSettings:
    """Where spans are sent to.

    Args:
        endpoint: URL of an OpenTelemetry collector, for OTLP over HTTP.
        rate: one of so many requests is traced, of those that belong to no trace of their caller's.
        resource: attributes of the sender, such as service.name.
    """

    endpoint: str
    rate: int = 1000
    resource: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Settings:
    """All settings.

    Args:
        pipelines: that are served; the names differ.
        keys: file of the keys; None answers everybody.
        queue: of each pipeline.
        limits: of each request.
        provenance: of each image.
        signing: of each image; None signs none.
        key_limits: of keys whose entries have none.
        tracing: of requests; None traces none.
        forwarded_headers: names in lower case of the headers that go on to Triton's route.
        refresh_seconds: after which ensembles and keys are read again.
    """

    pipelines: tuple[PipelineAddress, ...]
    keys: Path | None = None
    queue: QueueLimits = QueueLimits(16, 64)
    limits: RequestLimits = field(default_factory=RequestLimits)
    provenance: ProvenanceSettings = field(default_factory=ProvenanceSettings)
    signing: SigningSettings | None = None
    key_limits: KeyLimits = KeyLimits()
    tracing: TracingSettings | None = None
    forwarded_headers: tuple[str, ...] = FORWARDED_HEADERS
    refresh_seconds: float = 10.0

"""Spans of requests for an OpenTelemetry collector; those of Triton are below them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.trace import NoOpTracer, SpanKind, Status, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from diffusion_gateway.settings import TracingSettings

SERVICE = "diffusion-gateway"
_SERVER_ERRORS = 500
# A collector that does not answer must not hold what is sent to it for long, nor the end of the process.
_EXPORT_SECONDS = 5
_SHUTDOWN_MILLISECONDS = 5000
_PROPAGATOR = TraceContextTextMapPropagator()


class RequestTracer:
    """Makes spans; neither prompts nor keys are in them.

    Args:
        settings: None makes none.
    """

    def __init__(self, settings: TracingSettings | None) -> None:
        self._provider = _provider(settings) if settings is not None else None
        self._tracer = self._provider.get_tracer(SERVICE) if self._provider is not None else NoOpTracer()

    def close(self) -> None:
        """Send what has not been sent; blocks for some seconds where the collector does not answer."""
        if self._provider is not None:
            self._provider.force_flush(_SHUTDOWN_MILLISECONDS)
            self._provider.shutdown()

    @contextmanager
    def request(self, path: str, headers: Mapping[str, str]) -> Iterator[Span]:
        """The span of a request, in the trace of its caller where there is one.

        Args:
            path: of the API.
            headers: of the request.
        """
        attributes = {"http.request.method": "POST", "http.route": path}
        with self._tracer.start_as_current_span(
            f"POST {path}",
            _PROPAGATOR.extract(headers),
            SpanKind.SERVER,
            attributes,
            # Texts of exceptions are for the log.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield span

    @contextmanager
    def step(self, name: str, **attributes: AttributeValue) -> Iterator[None]:
        """A span inside the current one."""
        with self._tracer.start_as_current_span(name, attributes=attributes, record_exception=False):
            yield

    @contextmanager
    def call(self, ensemble: str, headers: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
        """The span of a request to Triton; its headers, with this span in the place of the caller's.

        Triton traces every request with a `traceparent`, so one that is not traced here has none.

        Args:
            ensemble: that the request is for.
            headers: of the caller that go on.
        """
        attributes = {"rpc.system.name": "grpc", "diffusion.ensemble": ensemble}
        with self._tracer.start_as_current_span(
            "infer", kind=SpanKind.CLIENT, attributes=attributes, record_exception=False
        ):
            yield headers if self._provider is None else _joined(headers)


def close_request(span: Span, status: int, attributes: Mapping[str, AttributeValue]) -> None:
    """Say how a request ended.

    Args:
        span: of the request.
        status: of HTTP.
        attributes: what is known about it.
    """
    span.set_attributes({"http.response.status_code": status, **attributes})
    if status >= _SERVER_ERRORS:
        span.set_status(Status(StatusCode.ERROR))


def _joined(headers: Mapping[str, str]) -> dict[str, str]:
    joined = {name: value for name, value in headers.items() if name not in _PROPAGATOR.fields}
    if get_current_span().get_span_context().trace_flags.sampled:
        _PROPAGATOR.inject(joined)
    return joined


def _provider(settings: TracingSettings) -> TracerProvider:
    # 10 MB that a gateway without traces does not need.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415

    resource = Resource.create({"service.name": SERVICE, **dict(settings.resource)})
    provider = TracerProvider(ParentBased(TraceIdRatioBased(1 / settings.rate)), resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(settings.endpoint, timeout=_EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider

"""A collector of OpenTelemetry spans on loopback: OTLP over HTTP, as protobuf or, from Triton, as JSON."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.loopback import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class CollectedSpan:
    """A span that arrived.

    Attributes:
        trace: 32 hex digits.
        id: 16 hex digits.
        parent: the same; empty where it has none.
        resource: what the sender says that it is.
        attributes: by name, as text.
    """

    name: str
    trace: str
    id: str
    parent: str
    resource: Mapping[str, str]
    attributes: Mapping[str, str]
    has_failed: bool


class Collector(ThreadingHTTPServer):
    """Holds what is sent to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[Mapping[str, Any]] = []

    @property
    def endpoint(self) -> str:
        """Where it takes traces."""
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def spans(self) -> list[CollectedSpan]:
        """All spans, in the order in which they arrived."""
        entries = [entry for request in self.requests for entry in request["resourceSpans"]]
        return [
            _span(span, _attributes(entry["resource"]))
            for entry in entries
            for scope in entry["scopeSpans"]
            for span in scope["spans"]
        ]

    def span_names(self) -> list[str]:
        """Names of all spans."""
        return [span.name for span in self.spans()]

    def services(self) -> list[Mapping[str, str]]:
        """What the senders say that they are, each once."""
        services = [
            {name: value for name, value in span.resource.items() if name in {"service.name", "service.namespace"}}
            for span in self.spans()
        ]
        return [item for index, item in enumerate(services) if item not in services[:index]]


@contextmanager
def collector() -> Iterator[Collector]:
    """Serve a collector while the block runs."""
    server = Collector()
    with serving(server):
        yield server


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        is_json = self.headers["Content-Type"] == "application/json"
        self.server.requests.append(json.loads(body) if is_json else _from_protobuf(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


def _from_protobuf(body: bytes) -> Mapping[str, Any]:
    request = ExportTraceServiceRequest.FromString(body)
    # JSON has bytes as base64, but the ids of OTLP as hex digits.
    entries: dict[str, Any] = MessageToDict(request)
    spans = [span for entry in request.resource_spans for scope in entry.scope_spans for span in scope.spans]
    written = [span for entry in entries["resourceSpans"] for scope in entry["scopeSpans"] for span in scope["spans"]]
    for span, fields in zip(spans, written, strict=True):
        fields |= {"traceId": span.trace_id.hex(), "spanId": span.span_id.hex()}
        fields["parentSpanId"] = span.parent_span_id.hex()
    return entries


def _span(fields: Mapping[str, Any], resource: Mapping[str, str]) -> CollectedSpan:
    trace, span, parent = (fields.get(name, "").lower() for name in ("traceId", "spanId", "parentSpanId"))
    has_failed = fields.get("status", {}).get("code") in {2, "STATUS_CODE_ERROR"}
    return CollectedSpan(fields["name"], trace, span, parent, resource, _attributes(fields), has_failed)


def _attributes(fields: Mapping[str, Any]) -> Mapping[str, str]:
    return {item["key"]: str(next(iter(item["value"].values()), "")) for item in fields.get("attributes", [])}

"""Metrics for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
_PREFIX = "diffusion_gateway"


class Metrics:
    """The metrics of one gateway, in a registry of its own.

    The label `model` is a pipeline or empty, `key` the name of a key and never the key.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["model", "key"]
        self.requests = Counter(
            f"{_PREFIX}_requests", "Requests by HTTP status; 499: the client went away.",
            [*labels, "operation", "status"], registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            f"{_PREFIX}_request_seconds", "Seconds from the headers to the end of the answer.",
            ["model", "operation"], buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.images = Counter(
            f"{_PREFIX}_images", "Images that were answered; kind: image, preview or withheld.", [*labels, "kind"],
            registry=self.registry,
        )  # fmt: skip
        self.rejected = Counter(
            f"{_PREFIX}_rejected_requests", "Requests that were rejected because of a limit.", labels,
            registry=self.registry,
        )  # fmt: skip
        self.waiting = Gauge(
            f"{_PREFIX}_waiting_requests", "Requests that wait for the model.", ["model"], registry=self.registry
        )
        self.running = Gauge(
            f"{_PREFIX}_running_images", "Images that the model makes now.", ["model"], registry=self.registry
        )
        self.ensembles = Gauge(
            f"{_PREFIX}_model_ensembles", "Ensembles of the model that were found.", ["model"], registry=self.registry
        )

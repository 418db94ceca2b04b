"""The dashboard of the images API: the gateway's metrics (`diffusion_gateway_*`)."""

from __future__ import annotations

from tools.dashboards.model import Dashboard, Panel, Query, Variable
from tools.dashboards.queries import RATE, quantile, rate

_ENSEMBLES = "diffusion_gateway_model_ensembles"
_REQUESTS = "diffusion_gateway_requests_total"
_BUCKETS = "diffusion_gateway_request_seconds_bucket"
_SELECTION = 'namespace=~"$namespace",pipeline=~"$pipeline"'


def _latency(rank: float) -> str:
    return quantile(rank, f"{_BUCKETS}{{{_SELECTION}}}", "operation", RATE)


API = Dashboard(
    "api",
    "Diffusion / API",
    "The images API in front of pipelines: requests, limits and latency, by key and by status.",
    (
        Panel(
            "Requests per second, by status",
            "429: a limit; 499: the client went away; 5xx: the pipeline failed, or did not answer in time.",
            "reqps",
            (Query(rate(_REQUESTS, _SELECTION, "status"), "{{status}}"),),
        ),
        Panel(
            "Requests per second, by key",
            "By the name of the key; anonymous where no keys are required.",
            "reqps",
            (Query(rate(_REQUESTS, _SELECTION, "key"), "{{key}}"),),
        ),
        Panel(
            "Rejected requests per second, by key",
            "Answered with 429 at once: the limits of the pods, or of the key.",
            "reqps",
            (Query(rate("diffusion_gateway_rejected_requests_total", _SELECTION, "key"), "{{key}}"),),
        ),
        Panel(
            "Images per second",
            "Images and previews that were answered.",
            "short",
            (Query(rate("diffusion_gateway_images_total", _SELECTION, "pipeline, kind"), "{{pipeline}} {{kind}}"),),
        ),
        Panel(
            "Request latency",
            "From the headers to the end of the answer, waiting included; refusals among them.",
            "s",
            (
                Query(_latency(0.5), "{{operation}} median"),
                Query(_latency(0.95), "{{operation}} 95th percentile"),
            ),
        ),
        Panel(
            "Waiting requests",
            "Of all pods. At limits.waiting of each pod, further requests are rejected.",
            "short",
            (Query(f"sum by (pipeline) (diffusion_gateway_waiting_requests{{{_SELECTION}}})", "{{pipeline}}"),),
        ),
        Panel(
            "Images in progress",
            "Of all pods. At limits.concurrent of each pod, further requests wait.",
            "short",
            (Query(f"sum by (pipeline) (diffusion_gateway_running_images{{{_SELECTION}}})", "{{pipeline}}"),),
        ),
        Panel(
            "Pods that have found their pipeline",
            "Pods with at least one ensemble; only these are ready.",
            "short",
            (Query(f"count by (pipeline) ({_ENSEMBLES}{{{_SELECTION}}} > 0)", "{{pipeline}}"),),
        ),
    ),
    (Variable("namespace", _ENSEMBLES), Variable("pipeline", _ENSEMBLES + '{namespace=~"$namespace"}')),
)

"""What the dashboards show: the operator's own metrics (`diffusion_operator_*`) and Triton's (`nv_*`).

Labels of Triton's series: its own `model`, `version`, `reason`; `namespace` and `pod` of the scrape; `pipeline`,
`target` and `revision`, which the chart's PodMonitor takes from the pod's labels.
"""

from __future__ import annotations

from tools.dashboards.images_api import API
from tools.dashboards.model import Dashboard, Panel, Query, Variable
from tools.dashboards.queries import (
    DENOISER,
    ENSEMBLES,
    RATE,
    SECONDS,
    SELECTION,
    error_ratio,
    mean_seconds,
    p95_seconds,
    quantile,
    rate,
    ratio,
)

_SERVED = "nv_inference_count"
_PIPELINES = (
    Variable("namespace", _SERVED),
    Variable("pipeline", _SERVED + '{namespace=~"$namespace"}'),
    Variable("target", _SERVED + '{namespace=~"$namespace",pipeline=~"$pipeline"}'),
)

_RECONCILES = "diffusion_operator_reconcile_duration_seconds_count"
_RECONCILE_BUCKETS = "diffusion_operator_reconcile_duration_seconds_bucket"

FLEET = Dashboard(
    "fleet",
    "Diffusion / Fleet",
    "All pipelines of a cluster, and the operator that looks after them.",
    (
        Panel(
            "Active operators",
            "1. With 0 nobody works, with 2 for long the election is broken; serving goes on either way.",
            "short",
            (Query("sum(diffusion_operator_leader)"),),
            kind="number",
            width=6,
        ),
        Panel(
            "Pipelines ready",
            "Ready means: every target serves the present generation of the spec.",
            "short",
            (Query('sum(diffusion_operator_pipelines{ready="True"})'),),
            kind="number",
            width=6,
        ),
        Panel(
            "Pipelines not ready",
            "kubectl get dp -A says which and why.",
            "short",
            (Query('sum(diffusion_operator_pipelines{ready!="True"})'),),
            kind="number",
            width=6,
        ),
        Panel(
            "Reconcile queue length",
            "Above 0 for long: more workers, or a slow API server.",
            "short",
            (Query("sum(diffusion_operator_queue_length)"),),
            kind="number",
            width=6,
        ),
        Panel(
            "Images per second",
            "Of all ensembles, by pipeline.",
            "short",
            (Query(rate(_SERVED, ENSEMBLES, "namespace, pipeline"), "{{namespace}}/{{pipeline}}"),),
        ),
        Panel(
            "Request error ratio",
            "Also requests that are refused because of their inputs.",
            "percentunit",
            (Query(error_ratio(ENSEMBLES, "namespace, pipeline"), "{{namespace}}/{{pipeline}}"),),
        ),
        Panel(
            "Queued denoiser steps",
            "What the autoscalers look at, summed over pods.",
            "short",
            (
                Query(
                    f"sum by (namespace, pipeline) (nv_inference_pending_request_count{{{DENOISER}}})",
                    "{{namespace}}/{{pipeline}}",
                ),
            ),
        ),
        Panel(
            "Serving pods",
            "Pods whose metrics are read.",
            "short",
            (
                Query(
                    f"count by (namespace, pipeline) (nv_inference_pending_request_count{{{DENOISER}}})",
                    "{{namespace}}/{{pipeline}}",
                ),
            ),
        ),
        Panel(
            "Reconciles per second",
            "One reconcile covers one pipeline. `internal_error` is a bug of the operator.",
            "short",
            (Query(f"sum by (outcome) (rate({_RECONCILES}{RATE}))", "{{outcome}}"),),
        ),
        Panel(
            "Reconcile duration",
            "Mostly the API server's answers.",
            "s",
            (
                Query(quantile(0.5, _RECONCILE_BUCKETS, "", RATE), "p50"),
                Query(quantile(0.95, _RECONCILE_BUCKETS, "", RATE), "p95"),
            ),
        ),
    ),
)

PIPELINE = Dashboard(
    "pipeline",
    "Diffusion / Pipeline",
    "One pipeline: what clients get, and where its time goes.",
    (
        Panel(
            "Images per second",
            "By ensemble, that is by task and step count.",
            "short",
            (Query(rate(_SERVED, f"{SELECTION},{ENSEMBLES}", "target, model"), "{{target}} {{model}}"),),
        ),
        Panel(
            "Mean request latency",
            "From its arrival at Triton to the image, with all queues.",
            "s",
            (Query(mean_seconds(f"{SELECTION},{ENSEMBLES}", "target, model"), "{{target}} {{model}}"),),
        ),
        Panel(
            "Request latency, 95th percentile",
            "Of the slowest pod, among the requests that it answered lately.",
            "s",
            (Query(p95_seconds(f"{SELECTION},{ENSEMBLES}", "target, model"), "{{target}} {{model}}"),),
        ),
        Panel(
            "Failed requests per second",
            "CANCELED: the client gave up. OTHER and BACKEND: the answer has the reason.",
            "short",
            (
                Query(
                    rate("nv_inference_request_failure", f"{SELECTION},{ENSEMBLES}", "target, reason"),
                    "{{target}} {{reason}}",
                ),
            ),
        ),
        Panel(
            "Queued denoiser steps per pod",
            "The autoscaling signal; compare it with pendingStepsPerReplica.",
            "short",
            (
                Query(
                    f"avg by (target) (nv_inference_pending_request_count{{{SELECTION},{DENOISER}}})",
                    "{{target}}",
                ),
            ),
        ),
        Panel(
            "Mean denoiser batch size",
            "1 with a lone client; with many it should come near shapes.batch.max.",
            "short",
            (Query(ratio(_SERVED, "nv_inference_exec_count", f"{SELECTION},{DENOISER}", "target"), "{{target}}"),),
        ),
        Panel(
            "Denoiser steps per second",
            "All steps of all requests: the pipeline's real throughput.",
            "short",
            (Query(rate(_SERVED, f"{SELECTION},{DENOISER}", "target"), "{{target}}"),),
        ),
        Panel(
            "Compute time by model",
            "Seconds per second that requests spend computing, by model; the denoiser should be nearly all of it.",
            "short",
            (
                Query(
                    rate("nv_inference_compute_infer_duration_us", f'{SELECTION},model!~".*_pipeline"', "model")
                    + f" / {SECONDS}",
                    "{{model}}",
                ),
            ),
        ),
        Panel(
            "Queue time by model",
            "Seconds per second that requests spend in queues, by model.",
            "short",
            (
                Query(
                    rate("nv_inference_queue_duration_us", f'{SELECTION},model!~".*_pipeline"', "model")
                    + f" / {SECONDS}",
                    "{{model}}",
                ),
            ),
        ),
        Panel(
            "GPU utilization",
            "Fraction of time with a kernel running; empty on CPU targets.",
            "percentunit",
            (Query(f"nv_gpu_utilization{{{SELECTION}}}", "{{pod}} {{gpu_uuid}}"),),
        ),
        Panel(
            "GPU memory",
            "Empty on CPU targets.",
            "bytes",
            (Query(f"nv_gpu_memory_used_bytes{{{SELECTION}}}", "{{pod}} {{gpu_uuid}}"),),
        ),
    ),
    _PIPELINES,
)

_BUILD_DURATION = "diffusion_operator_build_duration_seconds"
_BUILDS = "sum(increase(diffusion_operator_build_duration_seconds_count[1d]))"
_CACHE_HITS = "sum(increase(diffusion_operator_build_cache_hits_total[1d]))"

BUILDS = Dashboard(
    "builds",
    "Diffusion / Builds",
    "Fetching, exporting, compiling: how much, how long, how often for nothing.",
    (
        Panel(
            "Jobs by state",
            "Queued: waiting for a place among the compile Jobs of a SKU. Pending: waiting for a node.",
            "short",
            (Query("sum by (state) (diffusion_operator_jobs)", "{{state}}"),),
        ),
        Panel(
            "Jobs by stage",
            "Jobs that exist, finished ones too.",
            "short",
            (Query("sum by (stage) (diffusion_operator_jobs)", "{{stage}}"),),
        ),
        Panel(
            "Compile duration, median",
            "By component and SKU, of the last 24 hours.",
            "s",
            (
                Query(
                    quantile(0.5, _BUILD_DURATION + '_bucket{stage="compile"}', "component, sku", "[1d]"),
                    "{{component}} {{sku}}",
                ),
            ),
        ),
        Panel(
            "Export duration, median",
            "By component, of the last 24 hours.",
            "s",
            (
                Query(
                    quantile(0.5, _BUILD_DURATION + '_bucket{stage="export"}', "component", "[1d]"),
                    "{{component}}",
                ),
            ),
        ),
        Panel(
            "Concurrent builds",
            "Seconds of building per second: how many builders are busy on average.",
            "short",
            (Query(f"sum by (stage) (rate({_BUILD_DURATION}_sum[1h]))", "{{stage}}"),),
        ),
        Panel(
            "Failed Jobs per hour",
            "The pipeline's condition has the builder's sentence.",
            "short",
            (
                Query(
                    "sum by (stage, component, sku) (increase(diffusion_operator_build_failures_total[1h]))",
                    "{{stage}} {{component}} {{sku}}",
                ),
            ),
        ),
        Panel(
            "Cache hit ratio",
            "Of the Jobs of a day, those that had nothing to build.",
            "percentunit",
            (Query(f"{_CACHE_HITS} / ({_CACHE_HITS} + {_BUILDS})"),),
            kind="number",
        ),
        Panel(
            "Artifacts built per day",
            "Artifacts that were made.",
            "short",
            (Query(_BUILDS),),
            kind="number",
        ),
    ),
)

_REVISIONS = "target, revision"
_REVISION = "{{target}} {{revision}}"

ROLLOUT = Dashboard(
    "rollout",
    "Diffusion / Rollout",
    "Two revisions of one pipeline beside each other, while one takes over from the other.",
    (
        Panel(
            "Traffic weight",
            "Images of a revision, of all images of its target.",
            "percentunit",
            (
                Query(
                    f"{rate(_SERVED, f'{SELECTION},{ENSEMBLES}', _REVISIONS)} / on (target) group_left () "
                    f"{rate(_SERVED, f'{SELECTION},{ENSEMBLES}', 'target')}",
                    _REVISION,
                ),
            ),
        ),
        Panel(
            "Serving pods",
            "Pods whose metrics are read.",
            "short",
            (
                Query(
                    f"count by ({_REVISIONS}) (nv_inference_pending_request_count{{{SELECTION},{DENOISER}}})",
                    _REVISION,
                ),
            ),
        ),
        Panel(
            "Request error ratio",
            "A new revision should not fail more often than the old one.",
            "percentunit",
            (Query(error_ratio(f"{SELECTION},{ENSEMBLES}", _REVISIONS), _REVISION),),
        ),
        Panel(
            "Mean request latency",
            "Only comparable when both get the same mix of tasks and step counts.",
            "s",
            (Query(mean_seconds(f"{SELECTION},{ENSEMBLES}", _REVISIONS), _REVISION),),
        ),
        Panel(
            "Request latency, 95th percentile",
            "Of the slowest pod, over all ensembles.",
            "s",
            (Query(p95_seconds(f"{SELECTION},{ENSEMBLES}", _REVISIONS), _REVISION),),
        ),
        Panel(
            "Denoiser step latency",
            "Does not depend on the mix; it does on the batch beside it.",
            "s",
            (
                Query(
                    ratio(
                        "nv_inference_compute_infer_duration_us",
                        "nv_inference_request_success",
                        f"{SELECTION},{DENOISER}",
                        _REVISIONS,
                    )
                    + f" / {SECONDS}",
                    _REVISION,
                ),
            ),
        ),
        Panel(
            "Mean denoiser batch size",
            "A revision with little traffic has small batches, and is slower per image for that reason alone.",
            "short",
            (Query(ratio(_SERVED, "nv_inference_exec_count", f"{SELECTION},{DENOISER}", _REVISIONS), _REVISION),),
        ),
    ),
    _PIPELINES,
)

BOARDS = (FLEET, PIPELINE, BUILDS, ROLLOUT, API)

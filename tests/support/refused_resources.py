"""Custom resources that are refused, and words of the answer of the API server and of the contract."""

from __future__ import annotations

from tests.support.api_resources import REFUSED_APIS
from tests.support.pod_templates import REFUSED_JOBS, REFUSED_TEMPLATES
from tests.support.refused_fields import REFUSED_FIELDS
from tests.support.resource_parts import (
    HUB,
    REVISION,
    SPLIT,
    Refused,
    hub,
    model,
    target,
    variants,
)

REFUSED: dict[str, Refused] = {
    "branch": Refused(hub(revision="main"), "spec.model.source.huggingFace.revision", "not a branch or tag"),
    "short-revision": Refused(hub(revision=REVISION[:39]), "spec.model.source.huggingFace.revision", "full commit id"),
    "upper-case": Refused(hub(revision=REVISION.upper()), "spec.model.source.huggingFace.revision", "lower-case"),
    "repo": Refused(hub(repo="shapes"), "spec.model.source.huggingFace.repo", "should match"),
    "no-source": Refused({"model": {"source": {}}}, "spec.model.source", "exactly one of"),
    "two-sources": Refused(
        {"model": {"source": {**HUB, "persistentVolumeClaim": {"claimName": "mine"}}}},
        "spec.model.source",
        "exactly one of",
    ),
    "path": Refused(
        {"model": {"source": {"persistentVolumeClaim": {"claimName": "mine", "path": "../other"}}}},
        "spec.model.source.persistentVolumeClaim.path",
        "must not contain '..'",
    ),
    "version": Refused(
        {"model": {"source": {"persistentVolumeClaim": {"claimName": "mine", "version": "a b"}}}},
        "spec.model.source.persistentVolumeClaim.version",
        "should match",
    ),
    "subfolder": Refused(
        {"model": {"source": {**HUB, "subfolder": "v2/../.."}}}, "spec.model.source.subfolder", "must not contain '..'"
    ),
    "no-subfolder": Refused({"model": {"source": {**HUB, "subfolder": ""}}}, "spec.model.source.subfolder", "v2/large"),
    "variant": Refused({"model": {"source": {**HUB, "variant": "../x"}}}, "spec.model.source.variant", "should match"),
    "no-place": Refused({"model": {"source": {"subfolder": "v2"}}}, "spec.model.source", "exactly one of"),
    "local-path": Refused({"model": {"source": {"path": "/models/shapes"}}}, "spec.model.source.path", "unknown field"),
    "no-steps": Refused({"pipelines": [{"task": "generate", "steps": []}]}, "spec.pipelines[0].steps", "at least 1"),
    "zero-steps": Refused(
        {"pipelines": [{"task": "generate", "steps": [0]}]}, "spec.pipelines[0].steps[0]", "equal to 1"
    ),
    "65-steps": Refused(
        {"pipelines": [{"task": "generate", "steps": [65]}]}, "spec.pipelines[0].steps[0]", "equal to 64"
    ),
    "text-steps": Refused(
        {"pipelines": [{"task": "generate", "steps": ["4"]}]}, "spec.pipelines[0].steps[0]", "integer"
    ),
    "steps-twice": Refused(
        {"pipelines": [{"task": "generate", "steps": [4, 4]}]}, "spec.pipelines[0].steps[1]", "Duplicate"
    ),
    "late-preview": Refused(
        {"pipelines": [{"task": "generate", "steps": [4], "previews": [4]}]},
        "spec.pipelines[0].previews",
        "before the last step",
    ),
    "task": Refused({"pipelines": [{"task": "upscale"}]}, "spec.pipelines[0].task", '"generate", "img2img", "inpaint"'),
    "task-twice": Refused(
        {"pipelines": [{"task": "generate"}, {"task": "generate"}]},
        "spec.pipelines",
        "listed once with the same features",
    ),
    "no-feature": Refused(
        {"pipelines": [{"task": "generate", "features": []}]}, "spec.pipelines[0].features", "at least 1"
    ),
    "no-control-net": Refused(
        {**model(controlNets=[]), "pipelines": [{"task": "generate", "features": ["controlnet"]}]},
        "spec.pipelines",
        "feature controlnet needs a ControlNet",
    ),
    "no-adapter": Refused(
        {"pipelines": [{"task": "generate", "features": ["ip_adapter"]}]},
        "spec.pipelines",
        "feature ip_adapter needs an IP-Adapter",
    ),
    "control-net-name": Refused(
        model(controlNets=[{"name": "my_depth", "source": HUB}]), "spec.model.controlNets[0].name", "should match"
    ),
    "second-encoder": Refused(
        model(components={"text_encoder_2": {"source": HUB}}), "spec.model.components", "only StableDiffusionXL has"
    ),
    "second-encoder-of-variant": Refused(
        {"rollout": variants(10, model={"components": {"text_encoder_2": {"source": HUB}}})},
        "spec.rollout.experiment",
        "a variant has text_encoder_2",
    ),
    "long-prompts-of-compel": Refused(
        model(promptWeighting="Compel", longPrompts=True), "spec.model.longPrompts", "Compel has prompts of one window"
    ),
    "buckets-and-height": Refused(
        {"shapes": {"buckets": [{"height": 1024, "width": 1024}], "height": {"max": 1024}}},
        "spec.shapes.buckets",
        "use either buckets or height and width",
    ),
    "a-bucket-twice": Refused(
        {"shapes": {"buckets": [{"height": 64, "width": 64}] * 2}},
        "spec.shapes.buckets",
        "each bucket may be listed once",
    ),
    "odd-bucket": Refused(
        {"shapes": {"buckets": [{"height": 1024, "width": 1020}]}}, "spec.shapes.buckets[0].width", "multiple of 8"
    ),
    "no-bucket": Refused({"shapes": {"buckets": []}}, "spec.shapes.buckets", "at least 1"),
    "half-a-bucket": Refused({"shapes": {"buckets": [{"height": 64}]}}, "spec.shapes.buckets[0].width", "Required"),
    "algorithm-of-euler": Refused(
        {"scheduler": {"type": "Euler", "algorithmType": "sde-dpmsolver++"}},
        "spec.scheduler.algorithmType",
        "a setting of DPMSolverMultistep",
    ),
    "algorithm": Refused(
        {"scheduler": {"type": "DPMSolverMultistep", "algorithmType": "sde"}},
        "spec.scheduler.algorithmType",
        '"dpmsolver++", "sde-dpmsolver++"',
    ),
    "prompt-weighting": Refused(
        model(promptWeighting="a1111"), "spec.model.promptWeighting", '"None", "A1111", "Compel"'
    ),
    "preview-vae": Refused(model(previewVae={"source": HUB}), "spec.model.previewVae", "add previews to a pipeline"),
    "refiner-of-another-family": Refused(
        model(refiner={"source": HUB}), "spec.model.refiner", "only StableDiffusionXL has a refiner"
    ),
    "refiner-of-long-prompts": Refused(
        model(family="StableDiffusionXL", refiner={"source": HUB}, longPrompts=True),
        "spec.model.refiner",
        "prompts of one window without weights",
    ),
    "refiner-of-weighted-prompts": Refused(
        model(family="StableDiffusionXL", refiner={"source": HUB}, promptWeighting="A1111"),
        "spec.model.refiner",
        "prompts of one window without weights",
    ),
    "refiner-of-every-call": Refused(
        model(family="StableDiffusionXL", refiner={"source": HUB, "denoisingStart": 1}),
        "spec.model.refiner.denoisingStart",
        "less than or equal to 0",
    ),
    "refiner-of-img2img": Refused(
        {**model(family="StableDiffusionXL", refiner={"source": HUB}), "pipelines": [{"task": "img2img"}]},
        "spec.pipelines",
        "with model.refiner use the task generate only",
    ),
    "refiner-of-embeddings": Refused(
        {
            **model(family="StableDiffusionXL", refiner={"source": HUB}),
            "pipelines": [{"task": "generate", "features": ["embeddings"]}],
        },
        "spec.pipelines",
        "leave the feature embeddings out",
    ),
    "refiner-with-acceleration": Refused(
        {
            **model(family="StableDiffusionXL", refiner={"source": HUB}),
            "acceleration": {"guidance": {"stop": 0.5}},
        },
        "spec.acceleration",
        "some calls are the refiner's",
    ),
    "family": Refused(model(family="Flux"), "spec.model.family", '"StableDiffusion", "StableDiffusionXL"'),
    "clip-skip": Refused(model(clipSkip=12), "spec.model.clipSkip", "equal to 11"),
    "lora-weight": Refused(model(loras=[{"source": HUB, "weight": 11}]), "spec.model.loras[0].weight", "equal to 10"),
    "size": Refused({"shapes": {"height": {"opt": 500}}}, "spec.shapes.height.opt", "multiple of 8"),
    "order": Refused({"shapes": {"width": {"min": 768, "opt": 512}}}, "spec.shapes.width", "min <= opt <= max"),
    "batch": Refused({"shapes": {"batch": {"max": 0}}}, "spec.shapes.batch.max", "equal to 1"),
    "large-batch": Refused({"shapes": {"batch": {"max": 300}}}, "spec.shapes.batch.max", "equal to 128"),
    "preferred": Refused(
        {"shapes": {"batch": {"max": 4}}, "serving": {"batching": {"preferredBatchSizes": [8]}}},
        "spec.serving.batching.preferredBatchSizes",
        "shapes.batch.max",
    ),
    **REFUSED_FIELDS,
    **REFUSED_APIS,
    "unknown-field": Refused({"rollouts": {"strategy": "Canary"}}, "spec.rollouts", "unknown field"),
    "snake-case": Refused({"component_precision": {}}, "spec.component_precision", "unknown field"),
    "strategy": Refused({"rollout": {"strategy": "Recreate"}}, "spec.rollout.strategy", '"Canary", "RollingUpdate"'),
    "no-rollout-steps": Refused({"rollout": {"steps": []}}, "spec.rollout.steps", "at least 1"),
    "falling-weights": Refused(
        {"rollout": {"steps": [{"weight": 50}, {"weight": 10}]}}, "spec.rollout.steps", "must rise"
    ),
    "equal-weights": Refused(
        {"rollout": {"steps": [{"weight": 10}, {"weight": 10}]}}, "spec.rollout.steps", "must rise"
    ),
    "all-of-the-traffic": Refused(
        {"rollout": {"steps": [{"weight": 100}]}}, "spec.rollout.steps[0].weight", "equal to 99"
    ),
    "mirror-without-gateway": Refused(
        {"rollout": {"traffic": {"mirrorPercent": 5}}},
        "spec.rollout.traffic.mirrorPercent",
        "add traffic.gateway",
    ),
    "experiment-without-gateway": Refused(
        {"rollout": {**variants(10), "traffic": {}}},
        "spec.rollout.experiment",
        "add traffic.gateway",
    ),
    "surge": Refused(
        {"rollout": {"strategy": "RollingUpdate", "surge": 2}}, "spec.rollout.surge", "less than or equal"
    ),
    "surge-and-canary": Refused({"rollout": {"surge": 0}}, "spec.rollout.strategy", "use strategy RollingUpdate"),
    "surge-and-experiment": Refused({"rollout": {**variants(10), "surge": 0}}, "spec.rollout.surge", "use surge 1"),
    "surge-and-autoscaling": Refused(
        {
            "targets": [{"name": "a", "autoscaling": {"maxReplicas": 2}}],
            "rollout": {"strategy": "RollingUpdate", "surge": 0},
        },
        "spec.rollout.surge",
        "an autoscaler would start it again",
    ),
    "experiment-and-canary": Refused(
        {"rollout": {**variants(10), "strategy": "Canary"}},
        "spec.rollout.strategy",
        "use strategy RollingUpdate",
    ),
    "experiment-and-rollback": Refused(
        {"rollout": {**variants(10), "rollbackTo": "0123abcd"}},
        "spec.rollout.rollbackTo",
        "end the experiment first",
    ),
    "nothing-for-stable": Refused({"rollout": variants(40, 60)}, "spec.rollout.experiment.variants", "at least 1 %"),
    "variant-called-stable": Refused(
        {"rollout": variants(10, name="stable")},
        "spec.rollout.experiment.variants[0]",
        "give the variant another name",
    ),
    "variant-without-difference": Refused(
        {"rollout": {**SPLIT, "experiment": {"variants": [{"name": "a", "weight": 10}]}}},
        "spec.rollout.experiment.variants[0]",
        "give it model, scheduler or serving",
    ),
    "too-many-services": Refused(
        {"rollout": variants(10, 20), "targets": [{"name": f"t{number}"} for number in range(6)]},
        "spec.rollout.experiment",
        "use fewer of them",
    ),
    "variant-with-too-many-steps": Refused(
        {"rollout": variants(10, scheduler={"type": "Heun"}), "pipelines": [{"task": "generate", "steps": [40]}]},
        "spec.rollout",
        "at most 32 steps",
    ),
    "rollback-to": Refused({"rollout": {"rollbackTo": "v1"}}, "spec.rollout.rollbackTo", "should match"),
}

REFUSED |= {
    "the operator's metadata of a trigger": Refused(
        target(
            autoscaling={
                "maxReplicas": 4,
                "provider": "keda",
                "keda": {"serverAddress": "http://p:9090", "metadata": {"query": "up"}},
            }
        ),
        "spec.targets[0].autoscaling.keda.metadata",
        "leave them out",
    ),
    "a collector over gRPC": Refused(
        {"serving": {"tracing": {"endpoint": "collector:4317"}}}, "spec.serving.tracing.endpoint", "should match"
    ),
    "a setting in the endpoint": Refused(
        {"serving": {"tracing": {"endpoint": "http://c:4318,count=1"}}}, "spec.serving.tracing.endpoint", "should match"
    ),
}
REFUSED |= {
    f"pod template: {name}": Refused({"serving": {"podTemplate": patch}}, f"spec.serving.podTemplate.{path}", words)
    for name, (patch, path, words) in REFUSED_TEMPLATES.items()
}
REFUSED |= {
    f"jobs: {name}": Refused({"jobs": jobs}, f"spec.jobs.{path}", words)
    for name, (jobs, path, words) in REFUSED_JOBS.items()
}

NAMES = {"a" * 38: "", "a" * 39: "at most 38 characters", "1st": "must start with a letter"}
"""Names of pipelines, each with words of the objection; empty when it is accepted."""

"""Custom resources that are accepted, by the API server, by `validate` and by `build --spec`."""

from __future__ import annotations

from typing import Any

from tests.support.api_resources import ACCEPTED_APIS
from tests.support.pod_templates import EVERYTHING
from tests.support.resource_parts import (
    GPU,
    HUB,
    SLICE,
    model,
    target,
    variants,
)

ACCEPTED: dict[str, dict[str, Any]] = {
    "the shortest": {},
    "a claim": {"model": {"source": {"persistentVolumeClaim": {"claimName": "mine", "path": "models/shapes"}}}},
    "a claim read again": {
        "model": {"source": {"persistentVolumeClaim": {"claimName": "mine", "version": "2026-11-30"}}}
    },
    "a part of a repository": {"model": {"source": {**HUB, "subfolder": "v2/large", "variant": "fp16"}}},
    "an archive": {"model": {"source": {"archive": {"url": "https://files.example/a.tar", "sha256": "a" * 64}}}},
    "a claim as store": {"storage": {"claimName": "common"}},
    "a class": {"storage": {"size": "2Gi", "storageClassName": "fast", "accessModes": ["ReadWriteOnce"]}},
    "most steps": {"scheduler": {"type": "Euler"}, "pipelines": [{"task": "generate", "steps": [1, 4, 64]}]},
    "most steps of PNDM": {"scheduler": {"type": "PNDM"}, "pipelines": [{"task": "generate", "steps": [63]}]},
    "karras": {"scheduler": {"type": "DPMSolverMultistep", "useKarrasSigmas": True, "timestepSpacing": "trailing"}},
    "exponential": {"scheduler": {"type": "Euler", "useExponentialSigmas": True, "useKarrasSigmas": False}},
    "prediction": {"scheduler": {"predictionType": "v_prediction"}},
    "schedulers": {"schedulers": [{"type": "Euler"}, {"type": "Euler", "name": "karras", "useKarrasSigmas": True}]},
    "reuse of deep features": {
        "acceleration": {"deepCache": {"interval": 3, "branch": 1}},
        "pipelines": [{"task": "generate", "steps": [4, 20]}],
    },
    "guidance in a range": {
        "acceleration": {"guidance": {"stop": 0.25}, "deepCache": {"interval": 2}},
        "pipelines": [{"task": "generate", "steps": [4, 20]}],
    },
    "one GPU": {"targets": [GPU], "rollout": {"strategy": "RollingUpdate", "surge": 0}},
    "batching": {"serving": {"batching": {"maxQueueDelay": "500us", "preferredBatchSizes": [2, 4]}}},
    "variables": {"serving": {"env": [{"name": "A", "value": ""}]}},
    "variables from elsewhere": {
        "serving": {
            "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "s", "key": "a.b-c_d"}}},
                {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['example.com/team']"}}},
                {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ]
        }
    },
    "labels of every form": {
        "targets": [
            {
                "name": "a",
                "labels": {"team": "", "example.com/cost-Center_1": "a.B_c-1"},
                "nodeSelector": {"node-role.kubernetes.io/gpu": "", "x": "y" * 63},
                "tolerations": [
                    {"key": "example.com/only", "operator": "Equal", "value": "a", "effect": "NoSchedule"},
                    {"key": "", "operator": "Exists"},
                    {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
                ],
                "resources": {"limits": {"example.com/fpga": 1, "ephemeral-storage": "1Gi"}},
            }
        ]
    },
    "any host below a domain": {
        "rollout": {"traffic": {"gateway": {"name": "web", "hostnames": ["*.a.example", "b-1.example"]}}}
    },
    "two targets": {"targets": [{"name": "a"}, {"name": "b", "tolerations": [{"operator": "Exists"}]}]},
    "a slice": {"targets": [SLICE]},
    "a gpu": {"targets": [GPU], "precision": "bfloat16", "engines": {"optimizationLevel": 5, "workspace": 1}},
    "a claim template": {"targets": [{"name": "a", "gpu": {"product": "L4", "resourceClaimTemplateName": "gpu"}}]},
    "default steps": {"pipelines": [{"task": "generate"}]},
    "no pipelines": {"pipelines": None},
    "batch alone": {"shapes": {"batch": {"min": 1, "opt": 2, "max": 4}}},
    "largest batch alone": {"shapes": {"batch": {"max": 4}}},
    "nothing of shapes": {"shapes": {}},
    "null": {"shapes": None, "precision": None, "engines": {"runtime": None}},
    "one precision": {"precision": "float16", "componentPrecision": {"vae_decoder": "float32"}},
    "quantities": {"engines": {"resources": {"requests": {"cpu": 1, "memory": "1.5Gi"}}}},
    "whole numbers as floats": {"targets": [{"name": "a", "replicas": 2.0}]},
    "a device": target(resources={"requests": {"example.com/fpga": 2}, "limits": {"example.com/fpga": "2", "cpu": 2}}),
    "requests up to the limit": target(resources={"requests": {"memory": "1024Mi"}, "limits": {"memory": "1Gi"}}),
    "overrides": model(components={"denoiser": {"source": HUB}, "vae": {"source": HUB}}),
    "loras": model(loras=[{"source": HUB, "weight": -10}, {"source": HUB, "file": "a.safetensors"}]),
    "control nets": {
        **model(controlNets=[{"name": "canny", "source": HUB}, {"name": "depth2", "source": HUB}]),
        "pipelines": [{"task": "img2img", "features": ["controlnet"]}],
    },
    "an adapter": {
        **model(ipAdapter={"source": HUB, "imageEncoder": {"source": HUB}}),
        "pipelines": [{"task": "generate", "features": ["ip_adapter", "embeddings"], "previews": [5]}],
    },
    "weighted prompts": model(promptWeighting="A1111", longPrompts=True, family="StableDiffusionXL"),
    "buckets": {"shapes": {"buckets": [{"height": 1024, "width": 1024}, {"height": 832, "width": 1216}]}},
    "a stochastic solver": {"scheduler": {"type": "DPMSolverMultistep", "algorithmType": "sde-dpmsolver++"}},
    "no weights": model(promptWeighting="None"),
    "a vae for previews": {
        **model(previewVae={"source": HUB}),
        "pipelines": [{"task": "generate", "previews": [5]}, {"task": "img2img"}],
    },
    "a safety checker": model(safetyChecker={"source": HUB}, clipSkip=11, longPrompts=True, guidanceRescale=True),
    "another family": {
        **model(family="StableDiffusionXL", components={"text_encoder_2": {"source": HUB}}, clipSkip=2),
        "rollout": variants(10, model={"components": {"text_encoder_2": {"source": HUB}}}),
    },
    "a refiner": {
        **model(family="StableDiffusionXL", refiner={"source": HUB, "denoisingStart": 0.7}, promptWeighting="None"),
        "componentPrecision": {"refiner": "float16"},
    },
    "a rollout": {"rollout": {}},
    "rollout steps": {"rollout": {"steps": [{"weight": 1}, {"weight": 10, "pause": "30s"}], "rollbackTo": "0123abcd"}},
    "a mirror": {"rollout": {"traffic": {"gateway": {"name": "web", "hostnames": ["a.example"]}, "mirrorPercent": 5}}},
    "an experiment": {"rollout": variants(49)},
    "quality": {"rollout": {"analysis": {"quality": {"prompts": [{"prompt": "a"}], "minPSNR": 30}}}},
    "keda": {
        "targets": [
            {
                "name": "a",
                "autoscaling": {
                    "minReplicas": 0,
                    "maxReplicas": 4,
                    "provider": "keda",
                    "keda": {"serverAddress": "http://prometheus:9090", "activationQuery": "sum(x)"},
                },
            }
        ]
    },
    "suspended": {"suspend": True},
    **ACCEPTED_APIS,
    "traces": {"serving": {"tracing": {"endpoint": "http://collector.monitoring:4318/v1/traces", "rate": 1}}},
    "a Prometheus with a password": {
        "targets": [
            {
                "name": "cpu",
                "autoscaling": {
                    "maxReplicas": 4,
                    "provider": "keda",
                    "keda": {
                        "serverAddress": "https://aps-workspaces.eu-central-1.amazonaws.com/workspaces/ws-1",
                        "authenticationRef": {"name": "amp", "kind": "ClusterTriggerAuthentication"},
                        "metadata": {"awsRegion": "eu-central-1"},
                    },
                },
            }
        ]
    },
    "a node label of one's own": {
        "targets": [
            {
                "name": "l4",
                "gpu": {
                    "product": "NVIDIA-L4",
                    "productLabel": "cloud.google.com/gke-accelerator",
                    "productLabelValue": "nvidia-l4",
                },
                "nodeSelector": {"cloud.google.com/gke-gpu-driver-version": "latest"},
            }
        ]
    },
    "all that a podTemplate adds": {"serving": {"podTemplate": EVERYTHING}, "jobs": {"podTemplate": EVERYTHING}},
    "Jobs placed": {
        "jobs": {
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "annotations": {"sidecar.istio.io/inject": "false"},
            "resources": {"limits": {"memory": "4Gi"}},
        }
    },
    "variables and mounts of the server": {
        "serving": {
            "podTemplate": {
                "spec": {
                    "containers": [
                        {
                            "name": "triton",
                            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                            "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
                        }
                    ],
                    "volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "1Gi"}}],
                }
            }
        }
    },
}

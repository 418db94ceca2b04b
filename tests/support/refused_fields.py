"""Schedulers, engines, targets and storage that are refused, with words of the API server's message."""

from __future__ import annotations

from tests.support.resource_parts import (
    GPU,
    HUB,
    Refused,
    model,
    target,
)

REFUSED_FIELDS: dict[str, Refused] = {
    "scheduler": Refused({"scheduler": {"type": "Flow"}}, "spec.scheduler.type", '"DDIM"'),
    "scheduler-and-schedulers": Refused(
        {"scheduler": {"type": "DDIM"}, "schedulers": [{"type": "Euler"}]}, "spec.schedulers", "use either scheduler"
    ),
    "one-scheduler-twice": Refused(
        {"schedulers": [{"type": "Euler"}, {"type": "DDIM", "name": "euler"}]},
        "spec.schedulers",
        "give each entry another name",
    ),
    "karras": Refused(
        {"scheduler": {"type": "PNDM", "useKarrasSigmas": True}},
        "spec.scheduler.useKarrasSigmas",
        "use another type",
    ),
    "exponential": Refused(
        {"scheduler": {"type": "LCM", "useExponentialSigmas": True}},
        "spec.scheduler.useExponentialSigmas",
        "use another type",
    ),
    "both-sigmas": Refused(
        {"scheduler": {"type": "Euler", "useKarrasSigmas": True, "useExponentialSigmas": True}},
        "spec.scheduler.useExponentialSigmas",
        "spaced by one rule",
    ),
    "sample-prediction": Refused(
        {"scheduler": {"type": "PNDM", "predictionType": "sample"}}, "spec.scheduler.predictionType", "use another type"
    ),
    "spacing": Refused(
        {"scheduler": {"timestepSpacing": "even"}}, "spec.scheduler.timestepSpacing", '"leading", "trailing"'
    ),
    "pndm": Refused(
        {"scheduler": {"type": "PNDM"}, "pipelines": [{"task": "generate", "steps": [4, 64]}]},
        "spec.pipelines",
        "at most 63 steps",
    ),
    "heun": Refused(
        {"scheduler": {"type": "Heun"}, "pipelines": [{"task": "generate", "steps": [33]}]},
        "spec.pipelines",
        "at most 32 steps",
    ),
    "timesteps-of-edm": Refused(
        {"scheduler": {"type": "EDMEuler", "timestepSpacing": "trailing"}},
        "spec.scheduler.type",
        "the noise levels of EDM are the checkpoint's",
    ),
    "heun-listed": Refused(
        {"schedulers": [{"type": "DDIM"}, {"type": "Heun"}], "pipelines": [{"task": "generate", "steps": [33]}]},
        "spec.schedulers",
        "at most 32 steps",
    ),
    "interval": Refused({"acceleration": {"deepCache": {"interval": 1}}}, "spec.acceleration.deepCache.interval", "2"),
    "branch": Refused(
        {"acceleration": {"deepCache": {"interval": 3, "branch": 3}}}, "spec.acceleration.deepCache.branch", "2"
    ),
    "few-steps-for-an-interval": Refused(
        {"acceleration": {"deepCache": {"interval": 4}}, "pipelines": [{"task": "generate", "steps": [4, 20]}]},
        "spec.acceleration.deepCache",
        "use more steps than that",
    ),
    "guidance-for-no-call": Refused(
        {"acceleration": {"guidance": {"stop": 0.2}}, "pipelines": [{"task": "generate", "steps": [4, 20]}]},
        "spec.acceleration.guidance",
        "guidance would stop before the first call",
    ),
    "guidance-for-every-call": Refused(
        {"acceleration": {"guidance": {"stop": 1}}}, "spec.acceleration.guidance.stop", "less than or equal to 0"
    ),
    "reuse-with-controlnets": Refused(
        {"acceleration": {"deepCache": {"interval": 3}}, **model(controlNets=[{"name": "canny", "source": HUB}])},
        "spec.acceleration.deepCache",
        "ControlNets have to change",
    ),
    "precision": Refused({"precision": "float8"}, "spec.precision", '"float32"'),
    "bfloat16": Refused({"precision": "bfloat16"}, "spec.precision", "no bfloat16 on a CPU"),
    "bfloat16-of-one": Refused(
        {"componentPrecision": {"denoiser": "bfloat16"}}, "spec.componentPrecision", "no bfloat16 on a CPU"
    ),
    "precision-of-nothing": Refused(
        {"componentPrecision": {"unet": "float16"}}, "spec.componentPrecision.unet", "unknown field"
    ),
    "runtime": Refused({"engines": {"runtime": "openvino"}}, "spec.engines.runtime", '"tensorrt", "onnxruntime"'),
    "tensorrt-on-a-cpu": Refused({"engines": {"runtime": "tensorrt"}}, "spec.engines.runtime", "needs a gpu"),
    "onnxruntime-on-a-gpu": Refused(
        {"engines": {"runtime": "onnxruntime"}, "targets": [GPU]}, "spec.engines.runtime", "serves on CPUs"
    ),
    "level-without-gpu": Refused({"engines": {"optimizationLevel": 3}}, "spec.engines", "settings of TensorRT"),
    "timeout": Refused({"engines": {"timeout": "soon"}}, "spec.engines.timeout", "should match"),
    "memory": Refused(
        {"engines": {"resources": {"limits": {"memory": "lots"}}}},
        "spec.engines.resources.limits.memory",
        "should match",
    ),
    "label": Refused(
        {"engines": {"labels": {"app.kubernetes.io/name": "x"}}}, "spec.engines.labels", "use keys of your own"
    ),
    "label-value": Refused(target(labels={"team": "Größe"}), "spec.targets[0].labels.team", "should match"),
    "long-label-value": Refused(target(labels={"team": "x" * 64}), "spec.targets[0].labels.team", "63"),
    "label-key": Refused(target(labels={"my team": "a"}), "spec.targets[0].labels", "the key of a label"),
    "long-label-key": Refused(target(labels={"x" * 64: "a"}), "spec.targets[0].labels", "the key of a label"),
    "job-label": Refused({"engines": {"labels": {"team": "a b"}}}, "spec.engines.labels.team", "should match"),
    "selected-value": Refused(
        target(nodeSelector={"zone": "süd 1"}), "spec.targets[0].nodeSelector.zone", "should match"
    ),
    "selected-key": Refused(target(nodeSelector={"Zone/a": "b"}), "spec.targets[0].nodeSelector", "the key of a label"),
    "taint-key": Refused(
        target(tolerations=[{"key": "a b", "operator": "Exists"}]),
        "spec.targets[0].tolerations[0].key",
        "should match",
    ),
    "taint-value": Refused(
        target(tolerations=[{"key": "a", "value": "b c"}]), "spec.targets[0].tolerations[0].value", "should match"
    ),
    "no-taint-key": Refused(
        target(tolerations=[{"value": "a"}]), "spec.targets[0].tolerations[0]", "needs operator Exists"
    ),
    "compared-with-nothing": Refused(
        target(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]),
        "spec.targets[0].tolerations[0].value",
        "leave value out",
    ),
    "tolerated-for-a-time": Refused(
        target(tolerations=[{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]),
        "spec.targets[0].tolerations[0].tolerationSeconds",
        "leave tolerationSeconds out",
    ),
    "resource-name": Refused(
        target(resources={"requests": {"CPU": 1}}), "spec.targets[0].resources.requests", "name of a resource"
    ),
    "host": Refused(
        {"rollout": {"traffic": {"gateway": {"name": "web", "hostnames": ["Images.Example"]}}}},
        "spec.rollout.traffic.gateway.hostnames[0]",
        "should match",
    ),
    "image": Refused({"serving": {"image": "triton: 2"}}, "spec.serving.image", "should match"),
    "reserved-variable": Refused(
        {"serving": {"env": [{"name": "A", "value": ""}, {"name": "POD_UID", "value": "0"}]}},
        "spec.serving.env[1].name",
        "use another name",
    ),
    "home": Refused({"serving": {"env": [{"name": "HOME", "value": "/"}]}}, "spec.serving.env[0].name", "use another"),
    "variable-twice": Refused(
        {"serving": {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}},
        "spec.serving.env[1]",
        "Duplicate",
    ),
    "variable-without-value": Refused(
        {"serving": {"env": [{"name": "A"}]}}, "spec.serving.env[0]", "exactly one of value and valueFrom"
    ),
    "value-of-two": Refused(
        {
            "serving": {
                "env": [
                    {
                        "name": "A",
                        "valueFrom": {
                            "secretKeyRef": {"name": "s", "key": "k"},
                            "configMapKeyRef": {"name": "s", "key": "k"},
                        },
                    }
                ]
            }
        },
        "spec.serving.env[0].valueFrom",
        "exactly one of secretKeyRef",
    ),
    "pod-field": Refused(
        {"serving": {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.volumes"}}}]}},
        "spec.serving.env[0].valueFrom.fieldRef.fieldPath",
        "should match",
    ),
    "no-target": Refused({"targets": []}, "spec.targets", "at least 1"),
    "target-twice": Refused({"targets": [{"name": "a"}, {"name": "a"}]}, "spec.targets[1]", "Duplicate"),
    "target-name": Refused({"targets": [{"name": "CPU"}]}, "spec.targets[0].name", "should match"),
    "replicas": Refused({"targets": [{"name": "a", "replicas": 0}]}, "spec.targets[0].replicas", "equal to 1"),
    "product": Refused(
        {"targets": [{"name": "a", "gpu": {"product": "NVIDIA L4"}}]}, "spec.targets[0].gpu.product", "should match"
    ),
    "selected-product": Refused(
        {"targets": [{**GPU, "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}}]},
        "spec.targets[0].nodeSelector",
        "leave it out of nodeSelector",
    ),
    "falling-replicas": Refused(
        {"targets": [{"name": "a", "autoscaling": {"minReplicas": 3, "maxReplicas": 2}}]},
        "spec.targets[0].autoscaling",
        "must not be larger",
    ),
    "keda-without-address": Refused(
        {"targets": [{"name": "a", "autoscaling": {"maxReplicas": 2, "provider": "keda"}}]},
        "spec.targets[0].autoscaling.keda",
        "needs the field keda",
    ),
    "no-replicas-without-keda": Refused(
        {"targets": [{"name": "a", "autoscaling": {"minReplicas": 0, "maxReplicas": 2}}]},
        "spec.targets[0].autoscaling.minReplicas",
        "minReplicas 0 needs provider keda",
    ),
    "level-of-onnxruntime": Refused(
        {"engines": {"runtime": "onnxruntime", "optimizationLevel": 3}}, "spec.engines", "with runtime onnxruntime"
    ),
    "kubernetes-resource": Refused(
        target(resources={"limits": {"kubernetes.io/x": 1}}), "spec.targets[0].resources.limits", "Kubernetes' own"
    ),
    "half-a-device": Refused(
        target(resources={"limits": {"example.com/fpga": "500m"}}), "spec.targets[0].resources.limits", "whole numbers"
    ),
    "device-without-limit": Refused(
        target(resources={"requests": {"example.com/fpga": 1}, "limits": {"cpu": 1}}),
        "spec.targets[0].resources.requests",
        "requested as much as it is limited",
    ),
    "request-above-limit": Refused(
        target(resources={"requests": {"memory": "1025Mi"}, "limits": {"memory": "1Gi"}}),
        "spec.targets[0].resources.requests",
        "not be larger than its limit",
    ),
    "negative-amount": Refused(
        target(resources={"requests": {"cpu": -1}}), "spec.targets[0].resources.requests", "must not be negative"
    ),
    "negative-size": Refused({"storage": {"size": -1}}, "spec.storage.size", "must not be negative"),
    "no-size": Refused({"storage": {"size": "0"}}, "spec.storage.size", "needs some size"),
    "centuries": Refused({"engines": {"timeout": "100000h"}}, "spec.engines.timeout", "should match"),
    "huge-pages": Refused(
        target(resources={"limits": {"hugepages-2Mi": "4Mi"}}),
        "spec.targets[0].resources.limits",
        "name of a resource",
    ),
    "two-resources": Refused(
        {
            "targets": [
                {
                    "name": "a",
                    "gpu": {"product": "L4", "resourceName": "nvidia.com/gpu", "resourceClaimTemplateName": "gpu"},
                }
            ]
        },
        "spec.targets[0].gpu",
        "not both",
    ),
    "counted-claim-template": Refused(
        {"targets": [{"name": "a", "gpu": {"product": "L4", "count": 2, "resourceClaimTemplateName": "gpu"}}]},
        "spec.targets[0].gpu.count",
        "leave count out",
    ),
    "two-storages": Refused({"storage": {"claimName": "c", "size": "1Gi"}}, "spec.storage", "exactly one of"),
    "no-storage": Refused({"storage": {}}, "spec.storage", "exactly one of"),
    "storage-for-one-pod": Refused(
        {"storage": {"size": "1Gi", "accessModes": ["ReadWriteOncePod"]}},
        "spec.storage.accessModes",
        "ReadWriteOnce to keep them on one node",
    ),
    "class-of-a-given-claim": Refused(
        {"storage": {"claimName": "c", "storageClassName": "fast"}},
        "spec.storage",
        "belong to size",
    ),
}

"""Combinations of values that the charts are checked with: every switch, both ways."""

from __future__ import annotations

from typing import Any, Final

Values = dict[str, Any]

REGISTRY: Final = "registry.example.com"
IMAGES: Final[Values] = {"images": {"registry": REGISTRY}}
"""The only values that the chart asks for."""

DIGEST: Final = "sha256:" + "0123456789abcdef" * 4

_VALUE_SETS: Final[dict[str, Values]] = {
    "default": {},
    "namespaced": {
        "watchNamespaces": ["studio", "lab"],
        "serviceAccount": {"build": "diffusion-build", "serving": "diffusion-serving"},
    },
    "highly available": {
        "replicas": 2,
        "priorityClassName": "system-cluster-critical",
        "affinity": {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "topologyKey": "kubernetes.io/hostname",
                        "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "diffusion-operator"}},
                    }
                ]
            }
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "diffusion-operator"}},
            }
        ],
    },
    "digests and a private registry": {
        "images": {
            "operator": {"repository": "registry.example.com/diffusion-operator", "tag": "", "digest": DIGEST},
            "builder": {"repository": "registry.example.com/diffusion-builder", "digest": DIGEST},
            "serving": {"repository": "registry.example.com/diffusion-triton", "digest": DIGEST},
            "tensorrt": {
                "builder": {"repository": "registry.example.com/diffusion-builder-tensorrt", "digest": DIGEST},
                "serving": {"repository": "registry.example.com/diffusion-triton-tensorrt", "tag": "25.06"},
            },
            "pullSecrets": ["registry", "mirror"],
        },
        "crds": {"enabled": False},
    },
    "closed network": {
        "hub": {"endpoint": "https://hub.example.com"},
        "proxy": {"http": "http://proxy:3128", "https": "http://proxy:3128", "no": "hub.example.com,.svc"},
        "caBundle": {"configMap": "company-ca", "key": "bundle.pem"},
        "networkPolicy": {
            "pipelineNamespaces": ["studio"],
            "apiServerPorts": [6443],
            "hubPorts": [443],
            "dnsPorts": [53, 5353],
            "clients": [{"namespaceSelector": {"matchLabels": {"team": "pictures"}}}],
            "metricsClients": [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}],
        },
    },
    "monitored": {
        "metrics": {"service": True, "podMonitor": True, "interval": "30s", "labels": {"release": "prometheus"}},
        "alerts": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Diffusion"}},
    },
    "monitored by service": {"metrics": {"serviceMonitor": True}, "logFormat": "json"},
    "everything optional off": {
        "networkPolicy": {"enabled": False},
        "rbac": {"aggregate": False},
        "podDisruptionBudget": {"enabled": False},
        "crds": {"enabled": False},
        "serviceAccount": {"name": "existing"},
        "replicas": 0,
    },
    "placed": {
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}],
        "podAnnotations": {"example.com/team": "platform"},
        "podLabels": {"team": "platform"},
        "tests": {"pipeline": "studio/shapes", "steps": 4},
    },
    "users of the namespace": {"runAs": None},
    "traced": {"networkPolicy": {"collectorPorts": [4318]}, "watchNamespaces": ["studio"]},
    "labels of GKE": {
        "gpu": {"productLabel": "cloud.google.com/gke-accelerator", "productLabelValues": {"NVIDIA-L4": "nvidia-l4"}},
    },
    "jobs placed": {
        "jobs": {
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "ai", "effect": "NoSchedule"}],
            "annotations": {"sidecar.istio.io/inject": "false"},
            "resources": {"limits": {"memory": "4Gi"}},
        },
    },
    "named and labelled": {
        "fullnameOverride": "acme",
        "nameOverride": "imaging",
        "namespaceOverride": "elsewhere",
        "commonLabels": {"team": "platform"},
        "commonAnnotations": {"example.com/owner": "platform"},
        "global": {"imageRegistry": "mirror.example.com/project", "imagePullSecrets": ["mirror"]},
        "imagePullSecrets": [{"name": "registry"}],
        "networkPolicy": {"pipelineNamespaces": ["studio"]},
        "metrics": {"service": True, "podMonitor": True},
        "alerts": {"enabled": True},
        "dashboards": {"enabled": True},
        "replicas": 2,
    },
    "with extras": {
        "updateStrategy": {"type": "Recreate"},
        "podSecurityContext": {"supplementalGroups": [1000]},
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraArgs": ["--help"],
        "extraVolumes": [{"name": "notes", "configMap": {"name": "notes"}}],
        "extraVolumeMounts": [{"name": "notes", "mountPath": "/notes", "readOnly": True}],
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "notes", "namespace": "{{ .Release.Namespace }}"},
                "data": {"release": "{{ .Release.Name }}"},
            },
        ],
    },
}
VALUE_SETS: Final[dict[str, Values]] = {name: {**IMAGES, **values} for name, values in _VALUE_SETS.items()}

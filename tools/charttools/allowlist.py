"""What a checker would have otherwise, and why not."""

from __future__ import annotations

from typing import Final

KUBE_SCORE: Final = {
    "container-image-pull-policy": "tags and digests of our images never move: pulling again would only make the "
    "registry a part of every restart",
    "networkpolicy-targets-pod": "the operator makes the pods that these policies are for; a test compares the labels",
    "deployment-has-host-podantiaffinity": "topologySpreadConstraints keep the pods apart where there is room",
    "deployment-replicas": "one operator is the documented default: a second one only stands by",
}
"""Checks that kube-score leaves out for every combination of values."""

KUBE_SCORE_OF: Final = {
    "users of the namespace": {"container-security-context-user-group-id": "the namespace assigns them"},
}
"""Checks that kube-score leaves out for one combination of values."""

NO_SCHEMA: Final = {
    "PodMonitor": "of the Prometheus operator, whose definitions no test machine has; ports and labels are tested",
    "ServiceMonitor": "same",
    "PrometheusRule": "same; its expressions are parsed as PromQL",
}
"""Kinds that kubeconform passes over."""

UNPROTECTED: Final = "everything optional off"
"""The combination without NetworkPolicies, on purpose: kube-score would find exactly that."""

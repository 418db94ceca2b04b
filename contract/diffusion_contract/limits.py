"""Sizes, names and addresses that the operator and the builder agree about; standard library only."""

import re

# The kubelet cuts a container's termination message at this many bytes.
MAX_RESULT_BYTES = 4096
# Characters of a stage's error message: with everything around it, it fits into the termination message.
MAX_ERROR_MESSAGE = 1500
# Characters of a condition's message; the CRD allows 2048.
MAX_CONDITION_MESSAGE = 2000
# Characters of any other message in `status`, of an Event (Kubernetes allows 1024) or a verdict.
MAX_MESSAGE = 1000
# Characters of a verdict's message in the annotation of its Deployment.
MAX_ANNOTATION_MESSAGE = 900

HTTP_PORT = 8000
GRPC_PORT = 8001
METRICS_PORT = 8002
# Of the images API: requests and metrics.
API_PORT = 8080
API_METRICS_PORT = 8081

DIGEST_PATTERN = r"^[0-9a-f]{64}$"
COMMIT_PATTERN = r"^[0-9a-f]{40}$"
HUB_REPOSITORY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$"
CONTROL_NET_PATTERN = r"^[a-z][a-z0-9]*$"
SCHEDULER_PATTERN = r"^[a-z0-9]+$"
# Services and Deployments are named after a pipeline.
PIPELINE_PATTERN = r"^[a-z]([-a-z0-9]{0,36}[a-z0-9])?$"

_DIGEST = re.compile(DIGEST_PATTERN)


def is_digest(text: str) -> bool:
    """Whether this is a SHA-256 in hex, as artifacts are named."""
    return _DIGEST.fullmatch(text) is not None

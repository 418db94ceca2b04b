"""Names and labels of everything that the operator creates."""

from diffusion_contract.documents import GROUP
from diffusion_contract.limits import HTTP_PORT

MANAGER = "diffusion-operator"

NAME = "app.kubernetes.io/name"
MANAGED_BY = "app.kubernetes.io/managed-by"
ROLE = "app.kubernetes.io/component"

PIPELINE = f"{GROUP}/pipeline"
TARGET = f"{GROUP}/target"
REVISION = f"{GROUP}/revision"
STAGE = f"{GROUP}/stage"
COMPONENT = f"{GROUP}/component"
KEY = f"{GROUP}/key"
CLAIM = f"{GROUP}/claim"
QUEUE = f"{GROUP}/queue"
KUEUE = "kueue.x-k8s.io/queue-name"

RESULT = f"{GROUP}/result"
ATTEMPT = f"{GROUP}/attempt"
STORE_UID = f"{GROUP}/store-uid"
TEMPLATE = f"{GROUP}/template"
APPLIED = f"{GROUP}/applied"
REPOSITORY = f"{GROUP}/repository"
STABLE = f"{GROUP}/stable"
CANARY = f"{GROUP}/canary"
ROLLOUT = f"{GROUP}/rollout"
SIBLINGS = f"{GROUP}/siblings"
VARIANT = f"{GROUP}/variant"
PROMOTE = f"{GROUP}/promote"
ABORT = f"{GROUP}/abort"

API = "api"
BUILD = "build"
GATEWAY = "gateway"
SERVER = "triton"
SERVING = "serving"
STORE = "store"
MANAGED_SELECTOR = f"{MANAGED_BY}={MANAGER}"


def common_labels(pipeline: str, role: str) -> dict[str, str]:
    """Labels of everything that belongs to a pipeline."""
    return {NAME: "diffusion-pipeline", MANAGED_BY: MANAGER, ROLE: role, PIPELINE: pipeline}


def target_labels(pipeline: str, target: str) -> dict[str, str]:
    """Labels of what serves one target, and of what stands beside it."""
    return common_labels(pipeline, SERVING) | {TARGET: target}


def needed_by_label(pipeline: str) -> str:
    """Label key that says: this shared object is needed by this pipeline too."""
    return f"needed-by.{GROUP}/{pipeline}"


def is_needed_by_label(label: str) -> bool:
    """True for label keys that `needed_by_label` makes."""
    return label.startswith(f"needed-by.{GROUP}/")


def job_name(stage: str, component: str | None, key: str) -> str:
    """Name of a build Job: `<stage>-<component>-<key>`."""
    parts = [stage, *([component.replace("_", "-")] if component else []), key]
    return "-".join(parts)


def claim_name(pipeline: str) -> str:
    """Name of the claim that is created with a pipeline."""
    return f"{pipeline}-store"


def api_name(pipeline: str) -> str:
    """Name of every object of the images API in front of a pipeline."""
    return f"{pipeline}-api"


def target_service_name(pipeline: str, target: str) -> str:
    """Name of the Service with the stable revision of one target."""
    return f"{pipeline}-{target}"


def revision_name(pipeline: str, target: str, revision_id: str) -> str:
    """Name of a revision's Deployment and Service."""
    return f"{pipeline}-{target}-{revision_id}"


def service_of_url(address: str) -> str:
    """Name of the Service in an address that `service_url` has made."""
    return address.split("//", 1)[-1].split(".", 1)[0].split(":", 1)[0]


def service_url(service: str, namespace: str) -> str:
    """HTTP address of a Service inside the cluster."""
    return f"http://{service}.{namespace}.svc:{HTTP_PORT}"

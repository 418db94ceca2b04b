"""Settings of one operator process, read once from its environment."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, Literal

from pydantic import ValidationError

from diffusion_contract.base import LABEL_KEY
from diffusion_contract.documents import problems_of
from diffusion_contract.enums import Runtime
from diffusion_contract.skus import LABEL_VALUE, PRODUCT_LABEL
from diffusion_contract.spec import Jobs
from diffusion_operator.errors import BadInputError
from diffusion_operator.json_objects import parse_json_object

PREFIX = "DIFFUSION_OPERATOR_"
IMAGE_USER = 65532
UNSET = "none"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
LogFormat = Literal["text", "json"]


@dataclass(frozen=True)
class FetchNetwork:
    """How the Jobs that fetch checkpoints reach the outside.

    Attributes:
        proxies: environment variables for them, as (name, value).
        ca_config_map: ConfigMap in the pipelines' namespaces with a bundle of certificates; empty when there is none.
        ca_key: of that ConfigMap.
    """

    proxies: tuple[tuple[str, str], ...] = ()
    ca_config_map: str = ""
    ca_key: str = "ca.crt"


@dataclass(frozen=True)
class GpuNodeLabel:
    """The node label that says which GPU a node has, unless a target names another one.

    Attributes:
        key: of the label.
        values: its value by GPU product; a product that is not among them is the value itself.
    """

    key: str = PRODUCT_LABEL
    values: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class PodUser:
    """Who the pods of Jobs and servers run as; None leaves a field to the namespace, which may assign its own.

    Attributes:
        user: uid.
        group: gid.
        fs_group: gid that volumes are given to.
    """

    user: int | None = IMAGE_USER
    group: int | None = IMAGE_USER
    fs_group: int | None = IMAGE_USER


@dataclass(frozen=True)
class Settings:
    """What an administrator decides for all pipelines.

    Attributes:
        builder_image: image of the build Jobs.
        serving_image: image of the serving pods, unless a pipeline names its own.
        tensorrt_builder_image: image of the Jobs that compile for a GPU; empty when there is none.
        tensorrt_serving_image: image of the serving pods with a GPU; empty when there is none.
        gateway_image: image of the images API, unless a pipeline names its own; empty when there is none.
        compile_jobs_per_sku: most compile Jobs that run at once on one SKU, of all pipelines together.
        image_pull_policy: of all images.
        image_pull_secrets: names of pull secrets in the pipelines' namespaces.
        hub_endpoint: base URL of the model hub; empty means the hub library's own default.
        resync_seconds: every pipeline is looked at this often even when nothing happens.
        watch_namespaces: empty means all.
        health_port: of /healthz and /readyz.
        metrics_port: of /metrics.
        lease_namespace: where the processes elect a leader; empty means that this is the only process.
        lease_name: of the Lease there.
        identity: name of this process in the election.
        workers: pipelines that are looked at at the same time.
        log_format: `text` for people, `json` for log collectors.
        fetch: proxies and certificates of the Jobs that fetch.
        build_service_account: of the Jobs; empty means the namespace's default. No token is mounted either way.
        serving_service_account: of the serving pods; the same.
        pod_user: uid and groups of the pods of Jobs and servers.
        gpu_label: how GPU nodes are labelled.
        jobs: placement and metadata of all Jobs, which a pipeline can add to or replace.
    """

    builder_image: str
    serving_image: str
    tensorrt_builder_image: str = ""
    tensorrt_serving_image: str = ""
    gateway_image: str = ""
    compile_jobs_per_sku: int = 4
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    hub_endpoint: str = ""
    resync_seconds: float = 300.0
    watch_namespaces: tuple[str, ...] = ()
    health_port: int = 8080
    metrics_port: int = 9090
    lease_namespace: str = ""
    lease_name: str = "diffusion-operator"
    identity: str = "operator"
    workers: int = 8
    log_format: LogFormat = "text"
    fetch: FetchNetwork = FetchNetwork()
    build_service_account: str = ""
    serving_service_account: str = ""
    pod_user: PodUser = PodUser()
    gpu_label: GpuNodeLabel = GpuNodeLabel()
    jobs: Jobs = field(default_factory=Jobs)

    def builder_image_for(self, runtime: Runtime) -> str:
        """Image of the Jobs that compile for this runtime; empty when the administrator named none."""
        return self.tensorrt_builder_image if runtime is Runtime.TENSORRT else self.builder_image

    def serving_image_for(self, runtime: Runtime) -> str:
        """Image that serves engines of this runtime; empty when the administrator named none."""
        return self.tensorrt_serving_image if runtime is Runtime.TENSORRT else self.serving_image


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read the settings.

    Raises:
        BadInputError: a required variable is missing or one has no usable value.
    """
    log_format = _get(environment, "LOG_FORMAT", "text")
    if log_format not in {"text", "json"}:
        raise BadInputError(f"{PREFIX}LOG_FORMAT is {log_format!r}; set it to text or json.")
    values: dict[str, Any] = {
        one.name: _value(environment, one.name.upper(), one.default)
        for one in fields(Settings)
        if not is_dataclass(one.default) and one.default_factory is MISSING
    }
    user, group, fs_group = (_identifier(environment, name) for name in ("RUN_AS_USER", "RUN_AS_GROUP", "FS_GROUP"))
    values["hub_endpoint"] = environment.get("HF_ENDPOINT", "").strip()
    values["jobs"], values["gpu_label"] = _jobs(environment), _gpu_label(environment)
    return Settings(**values, fetch=_fetch(environment), pod_user=PodUser(user, group, fs_group))


def _value(environment: Mapping[str, str], name: str, default: object) -> str | float | tuple[str, ...]:
    """Text, a positive number or several names, as the default is; without a default the text is required."""
    if default is MISSING:
        return _required(environment, name)
    if isinstance(default, tuple):
        return _names(environment, name)
    if isinstance(default, int | float):
        return type(default)(_positive(environment, name, default))
    return _get(environment, name, str(default))


def _fetch(environment: Mapping[str, str]) -> FetchNetwork:
    values = {name: _get(environment, f"FETCH_{name}", "") for name in PROXIES}
    return FetchNetwork(
        # Both spellings: programs do not agree on one.
        proxies=tuple((spelled, values[name]) for name in PROXIES if values[name] for spelled in (name, name.lower())),
        ca_config_map=_get(environment, "FETCH_CA_CONFIG_MAP", ""),
        ca_key=_get(environment, "FETCH_CA_KEY", FetchNetwork.ca_key),
    )


def _jobs(environment: Mapping[str, str]) -> Jobs:
    try:
        return Jobs.model_validate_json(_get(environment, "JOBS", "{}"), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        lines = "\n".join(f"  {problem}" for problem in problems_of(error, "jobs"))
        raise BadInputError(f"{PREFIX}JOBS, the chart's value jobs, is not valid:\n{lines}") from error


def _gpu_label(environment: Mapping[str, str]) -> GpuNodeLabel:
    key, text = _get(environment, "GPU_PRODUCT_LABEL", PRODUCT_LABEL), _get(environment, "GPU_PRODUCT_LABEL_VALUES", "")
    values = parse_json_object(text)
    is_readable = all(map(_is_label_value, values.values())) and (bool(values) or not text)
    if re.fullmatch(LABEL_KEY, key) is None or not is_readable:
        raise BadInputError(
            f"{PREFIX}GPU_PRODUCT_LABEL is {key!r} and {PREFIX}GPU_PRODUCT_LABEL_VALUES {text!r}, the chart's "
            "gpu.productLabel and gpu.productLabelValues: set them to the key of a label, and to its value by product."
        )
    return GpuNodeLabel(key, tuple(sorted(values.items())))


def _is_label_value(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(rf"({LABEL_VALUE})?", value) is not None


def _get(environment: Mapping[str, str], name: str, default: str) -> str:
    return environment.get(PREFIX + name, "").strip() or default


def _required(environment: Mapping[str, str], name: str) -> str:
    value = _get(environment, name, "")
    if not value:
        raise BadInputError(f"{PREFIX}{name} is not set; the chart sets it, outside a cluster set it yourself.")
    return value


def _names(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in _get(environment, name, "").split(",") if part.strip())


def _identifier(environment: Mapping[str, str], name: str) -> int | None:
    text = _get(environment, name, str(IMAGE_USER))
    if text == UNSET:
        return None
    if not (text.isascii() and text.isdigit()):
        raise BadInputError(f"{PREFIX}{name} is {text!r}; set it to a number, or to {UNSET} to leave it out.")
    return int(text)


def _positive(environment: Mapping[str, str], name: str, default: float) -> float:
    text = _get(environment, name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value <= 0:
        raise BadInputError(f"{PREFIX}{name} is {text!r}; set it to a number greater than 0.")
    return value

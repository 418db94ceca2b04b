"""`podTemplate`: what is added to the pods of servers and Jobs, merged as Kubernetes merges a strategic patch.

Its fields are those that can be added to a pod without changing what the operator relies on; the others that people
try are here too, so that they are refused by name.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema
from pydantic.alias_generators import to_snake

from diffusion_contract.base import (
    ATOMIC,
    BY_NAME,
    Annotations,
    ApiModel,
    ExtraLabels,
    ListType,
    ObjectName,
    OpenObject,
    Rule,
    Tolerations,
)
from diffusion_contract.spec.affinity import Affinity
from diffusion_contract.spec.pod_container import OPERATOR_CONTAINERS, OPERATOR_VOLUMES, Name, TemplateContainer

VOLUME_KINDS = (
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
)
_ACCOUNT = "service accounts are the administrator's: the chart's serviceAccount.build and serviceAccount.serving"
_NODE = "Pod Security restricted allows no access to the node: leave it out"
_USER = "users and groups are the administrator's: the chart's runAs"
_PLACE = "use targets[].{0} for serving pods, jobs.{0} for Jobs and api.{0} for the images API"
ShortName = Annotated[str, Field(max_length=253)]


def _refusal(message: str) -> Rule:
    """A field that may not be given."""
    return Rule("false", message, lambda _: False)


def _refused(alias: str | None = None) -> Any:  # noqa: ANN401 - a pydantic field
    return Field(default=None, alias=alias, description="Refused.")


Switch = Annotated[bool, _refusal(_NODE)]
Account = Annotated[ShortName, _refusal(_ACCOUNT)]
Fixed = _refusal("the operator sets it, since its own work depends on it: leave it out")


class PodTemplateMetadata(ApiModel):
    """Metadata of the pods."""

    labels: ExtraLabels | None = Field(default=None, description="Additional labels.")
    annotations: Annotations | None = Field(default=None, description="Annotations.")


class TemplateVolume(ApiModel):
    """A volume that is added, of a kind that Pod Security `restricted` allows."""

    rules = (
        Rule(
            f"[{', '.join(f'has(self.{kind})' for kind in VOLUME_KINDS)}].exists_one(x, x)",
            f"a volume needs exactly one of {', '.join(VOLUME_KINDS)}, the kinds that Pod Security restricted allows",
            lambda self: sum(field not in {"name", "host_path"} for field in self.model_fields_set) == 1,
        ),
    )

    name: Annotated[
        Name,
        Rule(
            f"!(self in {list(OPERATOR_VOLUMES)})",
            f"the operator's volumes are {', '.join(OPERATOR_VOLUMES)}: use another name",
            lambda name: name not in OPERATOR_VOLUMES,
        ),
    ] = Field(description="Name of the volume.")
    config_map: OpenObject | None = Field(default=None, description="A ConfigMap.")
    csi: OpenObject | None = Field(default=None, description="A volume of a CSI driver, with the pod's life.")
    downward_api: OpenObject | None = Field(default=None, alias="downwardAPI", description="Fields of the pod.")
    empty_dir: OpenObject | None = Field(default=None, description="An empty folder.")
    ephemeral: OpenObject | None = Field(default=None, description="A claim with the pod's life.")
    image: OpenObject | None = Field(default=None, description="Files of an image.")
    persistent_volume_claim: OpenObject | None = Field(default=None, description="A claim.")
    projected: OpenObject | None = Field(default=None, description="Several sources in one folder.")
    secret: OpenObject | None = Field(default=None, description="A Secret.")
    host_path: (
        Annotated[
            OpenObject, _refusal("Pod Security restricted allows no files of the node: use another kind of volume")
        ]
        | None
    ) = _refused()


class HostAlias(ApiModel):
    """An entry of the pod's /etc/hosts."""

    ip: Annotated[str, Field(min_length=1, max_length=45)] = Field(description="IP address.")
    hostnames: Annotated[list[ShortName], Field(min_length=1, max_length=16), ATOMIC] = Field(description="Its names.")


class DnsOption(ApiModel):
    """An option of the resolver."""

    name: Annotated[str, Field(min_length=1, max_length=63)] = Field(description="Name of the option.")
    value: Annotated[str, Field(max_length=63)] | None = Field(default=None, description="Value of the option.")


class DnsConfig(ApiModel):
    """DNS settings, as in a pod."""

    nameservers: Annotated[list[ShortName], Field(max_length=3), ATOMIC] | None = Field(
        default=None, description="IP addresses of DNS servers."
    )
    searches: Annotated[list[ShortName], Field(max_length=32), ATOMIC] | None = Field(
        default=None, description="Domains in which names are searched."
    )
    options: Annotated[list[DnsOption], Field(max_length=32), ATOMIC] | None = Field(
        default=None, description="Options of the resolver."
    )


class TopologySpread(ApiModel):
    """How pods are spread, as in a pod."""

    topology_key: Annotated[str, Field(min_length=1, max_length=317)] = Field(description="Label of the nodes.")
    max_skew: Annotated[int, Field(ge=1)] = Field(description="Largest difference between numbers of pods.")
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        description="What happens when it cannot be held."
    )
    min_domains: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Least number of domains.")
    label_selector: OpenObject | None = Field(default=None, description="Which pods are counted.")
    match_label_keys: Annotated[list[Annotated[str, Field(max_length=317)]], Field(max_length=16), ATOMIC] | None = (
        Field(default=None, description="Labels whose values, of this pod, select the counted pods.")
    )
    node_affinity_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None, description="Whether nodes that affinity excludes are counted."
    )
    node_taints_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None, description="Whether nodes with taints are counted."
    )


class LocalObject(ApiModel):
    """An object of the pipeline's namespace."""

    name: ObjectName = Field(description="Name of the object.")


class ReadinessGate(ApiModel):
    """A condition of the pod that somebody else sets."""

    condition_type: Annotated[str, Field(min_length=1, max_length=317)] = Field(description="Type of the condition.")


class PodTemplateSpec(ApiModel):
    """What is added to the pod's spec."""

    containers: Annotated[list[TemplateContainer], Field(max_length=8), BY_NAME] | None = Field(
        default=None, description="Containers, merged by name; added ones come after the operator's."
    )
    init_containers: Annotated[list[TemplateContainer], Field(max_length=8), BY_NAME] | None = Field(
        default=None, description="Init containers, merged by name; added ones come before the operator's."
    )
    volumes: Annotated[list[TemplateVolume], Field(max_length=16), BY_NAME] | None = Field(
        default=None, description="Volumes."
    )
    affinity: Affinity | None = Field(default=None, description="Affinity, merged; lists in it are replaced.")
    tolerations: Tolerations | None = Field(default=None, description="Additional tolerations.")
    topology_spread_constraints: (
        Annotated[list[TopologySpread], Field(max_length=8), ListType("map", "topologyKey")] | None
    ) = Field(
        default=None,
        description="Spread of the pods; one with the operator's topologyKey (zone and host name, of serving pods) "
        "replaces it.",
    )
    host_aliases: Annotated[list[HostAlias], Field(max_length=16), ListType("map", "ip")] | None = Field(
        default=None, description="Entries of /etc/hosts."
    )
    dns_policy: Literal["ClusterFirst", "Default", "None"] | None = Field(default=None, description="DNS policy.")
    dns_config: DnsConfig | None = Field(default=None, description="DNS settings.")
    image_pull_secrets: Annotated[list[LocalObject], Field(max_length=16), BY_NAME] | None = Field(
        default=None, description="Additional pull secrets."
    )
    scheduler_name: ObjectName | None = Field(default=None, description="Scheduler of the pods.")
    runtime_class_name: ObjectName | None = Field(
        default=None, description="RuntimeClass; wins over gpu.runtimeClassName."
    )
    readiness_gates: Annotated[list[ReadinessGate], Field(max_length=8), ATOMIC] | None = Field(
        default=None, description="Conditions without which a pod is not ready."
    )
    node_selector: Annotated[OpenObject, _refusal(_PLACE.format("nodeSelector"))] | None = _refused()
    priority_class_name: Annotated[ShortName, _refusal(_PLACE.format("priorityClassName"))] | None = _refused()
    node_name: Annotated[ShortName, _refusal(_PLACE.format("nodeSelector"))] | None = _refused()
    service_account_name: Account | None = _refused()
    service_account: Account | None = _refused()
    automount_service_account_token: Annotated[bool, _refusal(_ACCOUNT)] | None = _refused()
    security_context: Annotated[OpenObject, _refusal(_USER)] | None = _refused()
    host_network: Switch | None = _refused()
    host_pid: Switch | None = _refused("hostPID")
    host_ipc: Switch | None = _refused("hostIPC")
    host_users: Switch | None = _refused()
    share_process_namespace: Annotated[bool, Fixed] | None = _refused()
    enable_service_links: Annotated[bool, Fixed] | None = _refused()
    restart_policy: Annotated[ShortName, Fixed] | None = _refused()
    active_deadline_seconds: Annotated[int, Fixed] | None = _refused()
    termination_grace_period_seconds: Annotated[int, Fixed] | None = _refused()


class PodTemplate(ApiModel):
    """What is added to pods."""

    metadata: PodTemplateMetadata | None = Field(default=None, description="Labels and annotations.")
    spec: PodTemplateSpec | None = Field(default=None, description="Parts of the pod.")


def _place(field: str, names: tuple[str, ...]) -> Rule:
    """Which of the operator's containers are in a list of the pod."""
    others = [name for name in OPERATOR_CONTAINERS if name not in names]
    path, attribute = f"self.spec.{field}", to_snake(field)

    def holds(template: PodTemplate) -> bool:
        entries = getattr(template.spec, attribute) if template.spec is not None else None
        return all(entry.name not in others for entry in entries or ())

    owner = f"the operator's container here is {' or '.join(names)}" if names else "the operator has no container here"
    return Rule(
        f"!has(self.spec) || !has({path}) || {path}.all(c, !(c.name in {others}))",
        f"{owner}: use another name for an added one",
        holds,
        f".spec.{field}",
    )


ServingPodTemplate = Annotated[PodTemplate, _place("containers", ("triton",)), _place("initContainers", ("verify",))]
JobPodTemplate = Annotated[
    PodTemplate, _place("containers", ("build",)), _place("initContainers", ("images", "scorer"))
]
ApiPodTemplate = Annotated[
    PodTemplate,
    _place("containers", ("gateway",)),
    _place("initContainers", ()),
    # A third copy would not fit into the annotation of client-side apply.
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""Only the operator checks it."""

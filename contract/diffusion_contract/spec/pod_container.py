"""Containers of a `podTemplate`: added ones, and the operator's, which get only variables and mounts."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field
from pydantic.alias_generators import to_snake

from diffusion_contract.base import ATOMIC, BY_NAME, ApiModel, ListType, OpenObject, Rule
from diffusion_contract.resources import Resources

OPERATOR_CONTAINERS = ("build", "triton", "images", "scorer", "verify", "gateway")
"""Containers that the operator writes; a podTemplate can only add variables and mounts to them."""
STORE_VOLUME = "store"
OPERATOR_VOLUMES = (STORE_VOLUME, "tmp", "shm", "source", "ca", "images", "token", "keys", "signing")
OPERATOR_PATHS = (
    "/store",
    "/tmp",  # noqa: S108 - a path in a container
    "/dev/shm",  # noqa: S108 - same
    "/source",
    "/images",
    "/etc/diffusion-ca",
    "/var/run/secrets/huggingface",
    "/keys",
    "/signing",
)
"""Where the operator's containers have their volumes."""
OPERATOR_VARIABLES = (
    "HOME",
    "POD_UID",
    "DIFFUSION_PIPELINE",
    "NVIDIA_DRIVER_CAPABILITIES",
    "SSL_CERT_FILE",
    "HF_ENDPOINT",
    "HF_TOKEN_PATH",
)
"""Variables that the operator sets in its containers, without those of proxies."""

Text = Annotated[str, Field(max_length=4096)]
Name = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
MountPath = Annotated[str, Field(max_length=512, pattern=r"^(/([^/:.]|[.][^/:.])[^/:]*)+$")]
Words = Annotated[list[Text], Field(max_length=64), ATOMIC]


class TemplateVariable(ApiModel):
    """An environment variable, as in a container."""

    name: Annotated[str, Field(max_length=253, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")] = Field(
        description="Name of the variable."
    )
    value: Text | None = Field(default=None, description="Value of the variable.")
    value_from: OpenObject | None = Field(default=None, description="Where the value comes from instead.")


class TemplateMount(ApiModel):
    """A mount, as in a container."""

    name: Name = Field(description="Name of the volume.")
    mount_path: MountPath = Field(description="Path in the container, without . and .. in it.")
    read_only: bool | None = Field(default=None, description="Whether it can only be read.")
    recursive_read_only: Literal["Disabled", "IfPossible", "Enabled"] | None = Field(
        default=None, description="Whether mounts below can only be read, too."
    )
    sub_path: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="Path in the volume. Defaults to its root."
    )
    sub_path_expr: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="The same, with variables."
    )


class SidecarCapabilities(ApiModel):
    """Capabilities, as Pod Security `restricted` allows them."""

    add: Annotated[list[Literal["NET_BIND_SERVICE"]], Field(max_length=1), ATOMIC] | None = Field(
        default=None, description="Additional capabilities."
    )
    drop: Annotated[
        list[Annotated[str, Field(max_length=64)]],
        Field(max_length=64),
        ATOMIC,
        Rule(
            "'ALL' in self",
            "Pod Security restricted wants all capabilities dropped: add ALL",
            lambda names: "ALL" in names,
        ),
    ] = Field(default=["ALL"], description="Dropped capabilities.")


class SeccompProfile(ApiModel):
    """Seccomp profile, as Pod Security `restricted` allows it."""

    type: Literal["RuntimeDefault", "Localhost"] = Field(description="Kind of profile.")
    localhost_profile: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="File on the node, of kind Localhost."
    )


class SidecarSecurityContext(ApiModel):
    """Security context of an added container; what Pod Security `restricted` refuses is refused here."""

    run_as_user: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Uid; defaults to the pod's.")
    run_as_group: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Gid; defaults to the pod's.")
    run_as_non_root: Literal[True] = Field(default=True, description="Whether uid 0 is refused.")
    privileged: Literal[False] | None = Field(default=None, description="Whether it has all rights of the node.")
    allow_privilege_escalation: Literal[False] = Field(default=False, description="Whether it can gain rights.")
    read_only_root_filesystem: bool | None = Field(default=None, description="Whether its image can only be read.")
    capabilities: SidecarCapabilities = Field(default=SidecarCapabilities(), description="Capabilities.")
    seccomp_profile: SeccompProfile | None = Field(default=None, description="Seccomp profile.")


class ContainerPort(ApiModel):
    """A port, as in a container; ports of the node are refused by Pod Security."""

    name: Annotated[str, Field(max_length=15)] | None = Field(default=None, description="Name of the port.")
    container_port: Annotated[int, Field(ge=1, le=65535)] = Field(description="Number of the port.")
    protocol: Literal["TCP", "UDP", "SCTP"] | None = Field(default=None, description="Defaults to TCP.")


_NAMES, _VOLUMES = list(OPERATOR_CONTAINERS), list(OPERATOR_VOLUMES)
_OTHER_FIELDS = (
    "imagePullPolicy",
    "workingDir",
    "ports",
    "resources",
    "lifecycle",
    "startupProbe",
    "readinessProbe",
    "livenessProbe",
    "restartPolicy",
)


def _operators_field(*fields: str) -> Rule:
    """Fields that a container of the operator's has from the operator alone."""
    return Rule(
        f"!(self.name in {_NAMES}) || !({' || '.join(f'has(self.{field})' for field in fields)})",
        f"{', '.join(OPERATOR_CONTAINERS)} are the operator's containers: env, envFrom and volumeMounts can be added "
        "to them, nothing else",
        _has_none(fields),
        f".{fields[0]}" if len(fields) == 1 else "",
    )


def _has_none(fields: tuple[str, ...]) -> Callable[["TemplateContainer"], bool]:
    names = [to_snake(field) for field in fields]
    return lambda self: not self.is_operators or all(getattr(self, name) is None for name in names)


def _is_operators_mount(mount: TemplateMount) -> bool:
    is_below = any(mount.mount_path.startswith(f"{path}/") for path in OPERATOR_PATHS if path != "/tmp")  # noqa: S108
    return mount.name in OPERATOR_VOLUMES or mount.mount_path in OPERATOR_PATHS or is_below


def _is_harmless(mount: TemplateMount) -> bool:
    return mount.name not in OPERATOR_VOLUMES or (mount.name == STORE_VOLUME and mount.read_only is True)


class TemplateContainer(ApiModel):
    """A container that is added, or one of the operator's, by its name, that gets variables and mounts."""

    rules = (
        *(_operators_field(field) for field in ("image", "command", "args", "securityContext")),
        _operators_field(*_OTHER_FIELDS),
        Rule(
            f"self.name in {_NAMES} || has(self.image)",
            f"an added container needs an image; the operator's own are {', '.join(OPERATOR_CONTAINERS)}",
            lambda self: self.is_operators or self.image is not None,
            ".name",
        ),
        Rule(
            f"!(self.name in {_NAMES}) || !has(self.env) || self.env.all(e, !(e.name in {list(OPERATOR_VARIABLES)}))",
            f"the operator sets {', '.join(OPERATOR_VARIABLES)} itself: use another name",
            lambda self: (
                not self.is_operators or all(variable.name not in OPERATOR_VARIABLES for variable in self.env or ())
            ),
            ".env",
        ),
        Rule(
            f"!(self.name in {_NAMES}) || !has(self.volumeMounts) || self.volumeMounts.all(m, "
            f"!(m.name in {_VOLUMES}) && !{list(OPERATOR_PATHS)}.exists(p, m.mountPath == p || "
            "(p != '/tmp' && m.mountPath.startsWith(p + '/'))))",
            f"the operator mounts its own volumes at {', '.join(OPERATOR_PATHS)}: add another volume at another path",
            lambda self: not self.is_operators or not any(map(_is_operators_mount, self.volume_mounts or ())),
            ".volumeMounts",
        ),
        Rule(
            f"self.name in {_NAMES} || !has(self.volumeMounts) || self.volumeMounts.all(m, !(m.name in {_VOLUMES}) || "
            f"(m.name == '{STORE_VOLUME}' && has(m.readOnly) && m.readOnly))",
            f"of the operator's volumes an added container can mount only {STORE_VOLUME}, with readOnly: true",
            lambda self: self.is_operators or all(map(_is_harmless, self.volume_mounts or ())),
            ".volumeMounts",
        ),
    )

    name: Name = Field(description="Name of the container.")
    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[!-~]+$")] | None = Field(
        default=None, description="Image; required for an added container."
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description="Pull policy of the image."
    )
    command: Words | None = Field(default=None, description="Command. Defaults to the image's.")
    args: Words | None = Field(default=None, description="Arguments. Default to the image's.")
    working_dir: Text | None = Field(default=None, description="Working directory.")
    env: Annotated[list[TemplateVariable], Field(max_length=64), BY_NAME] | None = Field(
        default=None, description="Environment variables."
    )
    env_from: Annotated[list[OpenObject], Field(max_length=16), ATOMIC] | None = Field(
        default=None, description="ConfigMaps and Secrets whose keys are environment variables."
    )
    ports: Annotated[list[ContainerPort], Field(max_length=16), ATOMIC] | None = Field(
        default=None, description="Ports."
    )
    resources: Resources | None = Field(default=None, description="Requests and limits.")
    volume_mounts: Annotated[list[TemplateMount], Field(max_length=16), ListType("map", "mountPath")] | None = Field(
        default=None, description="Mounts."
    )
    lifecycle: OpenObject | None = Field(default=None, description="Hooks.")
    startup_probe: OpenObject | None = Field(default=None, description="Startup probe.")
    readiness_probe: OpenObject | None = Field(default=None, description="Readiness probe.")
    liveness_probe: OpenObject | None = Field(default=None, description="Liveness probe.")
    restart_policy: Literal["Always"] | None = Field(
        default=None, description="Always makes an init container a sidecar."
    )
    security_context: SidecarSecurityContext | None = Field(
        default=None, description="Security context. Defaults to what Pod Security `restricted` wants."
    )

    @property
    def is_operators(self) -> bool:
        """Whether the operator writes this container."""
        return self.name in OPERATOR_CONTAINERS

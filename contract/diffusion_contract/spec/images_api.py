"""`spec.api`: the images API in front of the pipeline."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from diffusion_contract.base import (
    SET,
    ApiModel,
    Duration,
    Hostname,
    ImageName,
    LabelMap,
    ObjectName,
    Rule,
    Tolerations,
)
from diffusion_contract.resources import Resources, amount
from diffusion_contract.spec.pod_template import ApiPodTemplate
from diffusion_contract.spec.rollout import GatewayRef

KEYS_FILE = "keys.json"
DataKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
Concurrent = Annotated[int, Field(ge=1, le=1024)]
Waiting = Annotated[int, Field(ge=0, le=4096)]
Mebibytes = Annotated[int, Field(ge=1, le=4096)]


class KeysSecret(ApiModel):
    """A Secret in the pipeline's namespace with the hashes of keys."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: DataKey = Field(
        default=KEYS_FILE,
        description="Key inside the Secret: a file of entries that `diffusion-gateway new-key` makes.",
    )


class ApiAuth(ApiModel):
    """Who gets answers."""

    rules = (
        Rule(
            "(self.type == 'Keys') == has(self.keysSecretRef)",
            "type Keys needs keysSecretRef, the Secret with the hashes of the keys, and type None has none: add it, or "
            "leave it out",
            lambda self: (self.type == "Keys") == (self.keys_secret_ref is not None),
            ".keysSecretRef",
        ),
    )

    type: Literal["Keys", "None"] = Field(
        description="Keys: requests with a valid key; None: everybody who reaches the API."
    )
    keys_secret_ref: KeysSecret | None = Field(default=None, description="The keys that are valid; a change is read.")


class KeyLimits(ApiModel):
    """Limits of a key whose entry has none, in each pod."""

    concurrent: Concurrent | None = Field(default=None, description="Images that are made at a time.")
    waiting: Waiting | None = Field(default=None, description="Requests that wait; one more gets 429 at once.")


class ApiLimits(ApiModel):
    """What each pod of the API takes; with several pods the pipeline gets as much from each."""

    rules = (
        Rule(
            "self.uploadMiB <= self.bufferedMiB",
            "a body of uploadMiB has to fit into bufferedMiB, which is for all bodies: raise that, or lower uploadMiB",
            lambda self: self.upload_mib <= self.buffered_mib,
            ".uploadMiB",
        ),
        Rule(
            "!has(self.perKey) || !has(self.perKey.concurrent) || self.perKey.concurrent <= self.concurrent",
            "a key cannot make more images at a time than the pod: lower perKey.concurrent, or raise concurrent",
            lambda self: (
                self.per_key is None or self.per_key.concurrent is None or self.per_key.concurrent <= self.concurrent
            ),
            ".perKey",
        ),
    )

    concurrent: Concurrent = Field(default=16, description="Images that are made at a time, previews among them.")
    waiting: Waiting = Field(default=64, description="Requests that wait for that; one more gets 429 at once.")
    per_key: KeyLimits | None = Field(default=None, description="Limits of a key whose entry has none.")
    upload_mib: Mebibytes = Field(default=20, alias="uploadMiB", description="Size of a body, MiB.")
    buffered_mib: Mebibytes = Field(default=128, alias="bufferedMiB", description="Size of all bodies at a time, MiB.")
    pixels: Annotated[int, Field(ge=4096, le=268435456)] = Field(
        default=16777216, description="Pixels of an image that is sent or requested."
    )
    timeout: Duration = Field(default="2m", description="Time of a request, waiting included.")


class Signing(ApiModel):
    """Content Credentials (C2PA), for which the image of the API needs the package c2pa-python."""

    secret_name: ObjectName = Field(
        description="Secret of type kubernetes.io/tls in the pipeline's namespace: the chain in tls.crt, with the "
        "signer's certificate first, and its key in tls.key."
    )
    algorithm: Literal["es256", "es384", "ps256", "ed25519"] = Field(
        default="es256", description="Algorithm of the key, by its name in C2PA."
    )


class ApiProvenance(ApiModel):
    """What images say about themselves besides that they were generated."""

    embed: Annotated[list[Literal["model", "prompt", "seed"]], Field(max_length=3), SET] | None = Field(
        default=None, description="What is embedded in the XMP packet of each image."
    )
    signing: Signing | None = Field(default=None, description="Signs each image; none is signed without it.")


class ApiAutoscaling(ApiModel):
    """A HorizontalPodAutoscaler by processor time; replicas is ignored then."""

    rules = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas must not be larger than maxReplicas",
            lambda self: self.min_replicas <= self.max_replicas,
        ),
    )

    min_replicas: Annotated[int, Field(ge=1, le=100)] = Field(default=2, description="Minimum number of pods.")
    max_replicas: Annotated[int, Field(ge=1, le=100)] = Field(description="Maximum number of pods.")
    target_cpu_utilization: Annotated[int, Field(ge=1, le=100)] = Field(
        default=70,
        alias="targetCPUUtilization",
        description="Mean processor time of the pods, percent of what they request; above it the API is scaled up.",
    )


class ProxyService(ApiModel):
    """The Service of a Gateway's proxy, by which the API reaches the pipeline's routes."""

    name: ObjectName = Field(description="Name of the Service.")
    namespace: ObjectName | None = Field(
        default=None, description="Namespace of the Service. Defaults to the pipeline's."
    )
    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=80, description="Port of a listener without TLS (HTTP/2 with prior knowledge)."
    )
    hostname: (
        Annotated[
            Hostname,
            Rule(
                "!self.startsWith('*')",
                "a request goes to one host: use a name without a wildcard",
                lambda name: not name.startswith("*"),
            ),
        ]
        | None
    ) = Field(
        default=None, description="Host name of the requests. Defaults to the first one of traffic.gateway.hostnames."
    )


def _requests_cpu(resources: Resources) -> bool:
    return amount((resources.requests or {}).get("cpu", 0)) > Decimal(0)


class ImagesApi(ApiModel):
    """The images API: a stateless gateway in front of Triton, with keys, limits and a page."""

    rules = (
        Rule(
            "self.auth.type == 'Keys' || !has(self.limits.perKey)",
            "limits of keys need keys: use auth.type Keys, or leave limits.perKey out",
            lambda self: self.auth.type == "Keys" or self.limits.per_key is None,
            ".limits.perKey",
        ),
        Rule(
            "!has(self.autoscaling) || (has(self.resources.requests) && 'cpu' in self.resources.requests)",
            "autoscaling compares the processor time with what the pods request: add resources.requests.cpu",
            lambda self: self.autoscaling is None or _requests_cpu(self.resources),
            ".autoscaling",
        ),
    )

    auth: ApiAuth = Field(description="Who gets answers: no key, no answer, unless type None is said.")
    replicas: Annotated[int, Field(ge=1, le=100)] = Field(
        default=2, description="Number of pods; ignored with autoscaling."
    )
    autoscaling: ApiAutoscaling | None = Field(default=None, description="Scales the pods with their processor time.")
    limits: ApiLimits = Field(default=ApiLimits(), description="Limits of each pod.")
    provenance: ApiProvenance | None = Field(default=None, description="What images say about themselves.")
    gateway: GatewayRef | None = Field(
        default=None,
        description="Gateway that the API's HTTPRoute attaches to. Defaults to rollout.traffic.gateway; without either "
        "there is no route.",
    )
    upstream: ProxyService | None = Field(
        default=None,
        description="With rollout.traffic.gateway: the Service of its proxy. The weights are in its routes, so the "
        "API's requests pass through them as all others.",
    )
    network_policy: bool = Field(
        default=True,
        description="Whether a NetworkPolicy admits requests and metrics only, and lets the pods connect to the "
        "pipeline and DNS only.",
    )
    image: ImageName | None = Field(default=None, description="Image of the API; the operator's own when not given.")
    resources: Resources = Field(
        default=Resources(requests={"cpu": "250m", "memory": "256Mi"}, limits={"memory": "768Mi"}),
        description="Requests and limits of each pod.",
    )
    node_selector: LabelMap | None = Field(default=None, description="Labels that the nodes must have.")
    tolerations: Tolerations | None = Field(default=None, description="Taints that the pods tolerate.")
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass of the pods.")
    pod_template: ApiPodTemplate | None = Field(
        default=None,
        description="Anything else that is added to the pods, with the fields of serving.podTemplate. The operator "
        "checks it, instead of admission: the condition Accepted says what is wrong.",
    )

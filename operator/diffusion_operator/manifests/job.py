"""A build Job: one stage of the builder."""

from dataclasses import dataclass, field

from diffusion_contract.enums import ExitCode, Stage
from diffusion_contract.resources import Resources
from diffusion_contract.spec import PodTemplate, SecretKey
from diffusion_contract.spec.rollout import Scorer
from diffusion_operator import digests, naming
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.common import (
    STORE_PATH,
    TERMINATION_LOG,
    Owner,
    Placement,
    container_fields,
    metadata,
    pod_fields,
    store_mount,
    store_volume,
    with_gpu,
)
from diffusion_operator.manifests.overlay import with_overlay
from diffusion_operator.manifests.store_node import StoreNode, with_store_node
from diffusion_operator.settings import Settings

RETRIES = 2
SOURCE_PATH = "/source"
CA_FOLDER, CA_FILE = "/etc/diffusion-ca", "ca.crt"
IMAGES, IMAGES_PATH = "images", "/images"
SCORE_PATH = f"{IMAGES_PATH}/score.json"
SCORER_RESOURCES = Resources(requests={"cpu": "100m", "memory": "256Mi"})
TOKEN_FOLDER = "/var/run/secrets/huggingface"  # noqa: S105 - a path, not a secret


@dataclass(frozen=True)
class BuildJobSpec:
    """All that decides a build Job.

    Attributes:
        stage: of the builder: fetch, export, compile, assemble, parity, compare; or gc.
        component: what is exported or compiled.
        key: digest of the inputs; equal keys are equal results.
        arguments: of the builder, after the stage's name.
        store_uid: of that claim; a new claim of the same name is another, empty store.
        source_claim: that holds the checkpoint, when it comes from a claim.
        token: access token of the hub; mounted as a file in this Job only.
        labels: more labels, such as a queue's name.
        annotations: of the Job and its pods.
        scorer: takes part in the verdict of a comparison.
        pod_templates: that are added to the pod, the later one last.
        node: that all pods of the claim share; None when several nodes can mount it.
    """

    stage: str
    key: str
    arguments: tuple[str, ...]
    resources: Resources
    timeout_seconds: int
    claim: str
    store_uid: str
    component: str | None = None
    sku: str | None = None
    placement: Placement = field(default_factory=Placement)
    source_claim: str | None = None
    token: SecretKey | None = None
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    scorer: Scorer | None = None
    pod_templates: tuple[PodTemplate, ...] = ()
    node: StoreNode | None = None

    @property
    def queue(self) -> str | None:
        """SKU whose compile Jobs are counted; None when this one need not wait for its turn.

        GPUs are few; for a CPU the scheduler alone decides. Kueue does this by itself.
        """
        scarce = self.stage == Stage.COMPILE and self.placement.gpu is not None
        return self.sku if scarce and naming.KUEUE not in dict(self.labels) else None

    @property
    def command(self) -> tuple[str, ...]:
        """Of the builder."""
        return ("store", "gc") if self.stage == Stage.GC else (self.stage,)

    @property
    def downloads(self) -> bool:
        """True for the Jobs that need the network."""
        return self.stage == Stage.FETCH and self.source_claim is None

    @property
    def name(self) -> str:
        """Name of the Job."""
        return naming.job_name(self.stage, self.component, self.key)


def job_manifest(spec: BuildJobSpec, owner: Owner, settings: Settings, attempt: int = 0) -> JsonObject:
    """The Job. Several pipelines may own it, so it names none of them as its controller.

    Args:
        spec: what is built.
        owner: the pipeline that asks for it.
        settings: of the operator.
        attempt: how often it was restarted.
    """
    labels = _labels(spec, owner)
    template = _template(spec, labels, settings)
    own = {naming.needed_by_label(owner.name): "true"} | ({naming.QUEUE: spec.queue} if spec.queue else {})
    head = metadata(spec.name, owner, {**labels, **own}, controller=False)
    head["annotations"] = {
        **dict(spec.annotations),
        naming.ATTEMPT: str(attempt),
        naming.TEMPLATE: template_digest(spec, settings),
        naming.STORE_UID: spec.store_uid,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": head,
        "spec": {
            # It starts once it is its turn: `plan.build_steps`.
            **({"suspend": True} if spec.queue else {}),
            "backoffLimit": RETRIES,
            "podFailurePolicy": _failure_policy(spec),
            "template": template,
        },
    }


def template_digest(spec: BuildJobSpec, settings: Settings) -> str:
    """Digest of how the Job is run; when it changes, a failed Job gets a new chance at once."""
    template = _template(spec, dict(spec.labels), settings)
    decisive = template if any(template["metadata"].values()) else template["spec"]
    return digests.json_digest(decisive)[: digests.KEY_LENGTH]


def _template(spec: BuildJobSpec, labels: dict[str, str], settings: Settings) -> JsonObject:
    annotations = dict(spec.annotations)
    head: JsonObject = {"labels": labels, "annotations": annotations} if annotations else {"labels": labels}
    template: JsonObject = {"metadata": head, "spec": _pod(spec, settings)}
    for overlay in spec.pod_templates:
        template = with_overlay(template, overlay)
    return {**template, "spec": with_store_node(template["spec"], spec.node)}


def _labels(spec: BuildJobSpec, owner: Owner) -> dict[str, str]:
    labels = {
        **dict(spec.labels),
        **naming.common_labels(owner.name, naming.BUILD),
        naming.STAGE: spec.stage,
        naming.KEY: spec.key,
        **(spec.node.labels if spec.node is not None else {}),
    }
    if spec.component:
        labels[naming.COMPONENT] = spec.component
    if spec.sku:
        labels[naming.TARGET] = spec.sku
    return labels


def _failure_policy(spec: BuildJobSpec) -> JsonObject:
    """A disruption costs no retry; bad input is never tried again."""
    builders = [naming.BUILD] if spec.scorer is None else [IMAGES, naming.BUILD]
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            *(
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": name, "operator": "In", "values": [int(ExitCode.BAD_INPUT)]},
                }
                for name in builders
            ),
        ]
    }


def _pod(spec: BuildJobSpec, settings: Settings) -> JsonObject:
    volumes, _ = _volumes(spec, settings)
    score_arguments = ("--score", SCORE_PATH) if spec.scorer is not None else ()
    container = _builder_container(naming.BUILD, spec, settings, (*score_arguments, "--result", TERMINATION_LOG))
    return {
        **pod_fields(settings, spec.placement, settings.build_service_account),
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 10,
        # On the pod, not on the Job: time spent waiting for a node is not the build's.
        "activeDeadlineSeconds": spec.timeout_seconds,
        **_scorer_containers(spec, settings),
        "containers": [with_gpu(container, spec.placement)],
        "volumes": volumes,
    }


def _builder_container(
    name: str, spec: BuildJobSpec, settings: Settings, extra_arguments: tuple[str, ...]
) -> JsonObject:
    image = settings.builder_image_for(spec.placement.runtime)
    container = container_fields(name, image, settings.image_pull_policy, spec.resources)
    words = ("--progress", "json", *spec.command, "--store", STORE_PATH, *spec.arguments, *extra_arguments)
    container["args"] = list(words)
    container["env"] = _environment(spec, settings)
    _, container["volumeMounts"] = _volumes(spec, settings)
    return container


def _scorer_containers(spec: BuildJobSpec, settings: Settings) -> JsonObject:
    """First the images are generated, then the scorer reads them; the build container combines both verdicts.

    It finds the images in the store, so that nothing is generated twice.
    """
    if spec.scorer is None:
        return {}
    generation = _builder_container(IMAGES, spec, settings, ("--export", IMAGES_PATH, "--result", TERMINATION_LOG))
    # A stranger's program: it gets the images, and not the store.
    scorer = container_fields("scorer", spec.scorer.image, settings.image_pull_policy, SCORER_RESOURCES)
    if spec.scorer.command:
        scorer["command"] = list(spec.scorer.command)
    scorer["args"] = [IMAGES_PATH]
    scorer["terminationMessagePolicy"] = "FallbackToLogsOnError"
    scorer["env"] = [{"name": "HOME", "value": "/tmp"}]  # noqa: S108 - the pod's own emptyDir
    scorer["volumeMounts"] = [mount for mount in _volumes(spec, settings)[1] if mount["name"] in {"tmp", IMAGES}]
    return {"initContainers": [generation, scorer]}


def _environment(spec: BuildJobSpec, settings: Settings) -> list[JsonObject]:
    environment = [{"name": "HOME", "value": "/tmp"}]  # noqa: S108 - the pod's own emptyDir
    if spec.downloads:
        environment += [{"name": name, "value": value} for name, value in settings.fetch.proxies]
        if settings.fetch.ca_config_map:
            environment.append({"name": "SSL_CERT_FILE", "value": f"{CA_FOLDER}/{CA_FILE}"})
        if settings.hub_endpoint:
            environment.append({"name": "HF_ENDPOINT", "value": settings.hub_endpoint})
        if spec.token is not None:
            environment.append({"name": "HF_TOKEN_PATH", "value": f"{TOKEN_FOLDER}/token"})
    return environment


def _volumes(spec: BuildJobSpec, settings: Settings) -> tuple[list[JsonObject], list[JsonObject]]:
    volumes = [{"name": "tmp", "emptyDir": {}}, store_volume(spec.claim, read_only=False)]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, store_mount(read_only=False)]  # noqa: S108 - same
    if spec.source_claim is not None:
        claim = {"claimName": spec.source_claim, "readOnly": True}
        volumes.append({"name": "source", "persistentVolumeClaim": claim})
        mounts.append({"name": "source", "mountPath": SOURCE_PATH, "readOnly": True})
    if spec.downloads and settings.fetch.ca_config_map:
        items = [{"key": settings.fetch.ca_key, "path": CA_FILE}]
        volumes.append({"name": "ca", "configMap": {"name": settings.fetch.ca_config_map, "items": items}})
        mounts.append({"name": "ca", "mountPath": CA_FOLDER, "readOnly": True})
    if spec.scorer is not None:
        volumes.append({"name": IMAGES, "emptyDir": {"sizeLimit": "1Gi"}})
        mounts.append({"name": IMAGES, "mountPath": IMAGES_PATH})
    if spec.token is not None:
        items = [{"key": spec.token.key, "path": "token"}]
        # Root owns the file: without a group that the pod surely has, everybody in it must be able to read it.
        mode = 0o444 if settings.pod_user.fs_group is None else 0o440
        secret = {"secretName": spec.token.name, "items": items, "defaultMode": mode}
        volumes.append({"name": "token", "secret": secret})
        mounts.append({"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True})
    return volumes, mounts

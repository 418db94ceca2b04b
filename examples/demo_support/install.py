"""Bringing everything into the cluster: images, operator, hub, and the pipeline itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import yaml

from examples.demo_hub import Repository
from examples.demo_support import hub
from examples.demo_support.errors import DemoError
from examples.demo_support.gpu import on_gpu
from examples.demo_support.settings import IMAGE_VARIABLES, ROOT
from tools.common.errors import ToolError
from tools.images.build import Options, build_all, prepare
from tools.images.paths import default_paths
from tools.images.recipes import by_name
from tools.images.registry import parse_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from examples.demo_support.commands import Tools

OPERATOR_NAMESPACE: Final = "diffusion-operator"
CHART: Final = ROOT / "charts" / "diffusion-operator"
PIPELINE_FILE: Final = ROOT / "examples" / "pipeline.yaml"
CHECKPOINT: Final = ROOT / "examples" / "demo-checkpoint"
_ROLLOUT_TIMEOUT: Final = "300s"

Images = dict[str, str]


def build_images(registry: str, tell: Callable[[str], None]) -> tuple[Images, list[str]]:
    """Build what changed, and push it where a registry is given.

    Returns:
        Name → reference, and the names of those that changed.

    Raises:
        DemoError: An image cannot be built or pushed.
    """
    changed: list[str] = []

    def report(name: str, what: str, seconds: float) -> None:
        if what != "unchanged":
            changed.append(name)
        tell(f"{name} {what}" + (f" in {seconds:.0f} s" if seconds else ""))

    try:
        recipes = [by_name(name) for name in IMAGE_VARIABLES]
        options = Options(registry=parse_registry(registry) if registry else None, report=report)
        return build_all(recipes, default_paths(), options), changed
    except ToolError as error:
        raise DemoError(str(error)) from error


def prepare_images() -> None:
    """Install what building images needs; DemoError where that is not possible."""
    try:
        prepare()
    except ToolError as error:
        raise DemoError(str(error)) from error


def install_operator(
    tools: Tools, images: Mapping[str, str], namespace: str, tensorrt_images: Mapping[str, str] | None = None
) -> None:
    """Install or upgrade the chart and wait until the operator runs.

    Args:
        tools: programs.
        images: name → reference.
        namespace: of the hub.
        tensorrt_images: name below the chart's `images` → reference; None where nothing runs on a GPU.

    Raises:
        DemoError: Helm refuses, or the operator does not start.
    """
    own_images = {"operator": images["operator"], "builder": images["builder"], "serving": images["triton"]}
    chart_images = {**own_images, **(tensorrt_images or {})}
    options = ["--set-string", f"hub.endpoint={hub.endpoint(namespace)}", *image_options(chart_images)]
    upgrade_operator(tools, ["--install", "--create-namespace", *options])


def image_options(images: Mapping[str, str]) -> list[str]:
    """Return Helm's options for images.

    Args:
        images: name below the chart's `images` → reference.
    """
    options = []
    for name, reference in images.items():
        repository, tag = split_reference(reference)
        options += ["--set-string", f"images.{name}.repository={repository}"]
        options += ["--set-string", f"images.{name}.tag={tag}"]
    return options


def upgrade_operator(tools: Tools, options: Sequence[str], chart: Path = CHART) -> None:
    """Upgrade the operator's release with these options of Helm and wait until the operator runs.

    Raises:
        DemoError: Helm refuses, or the operator does not start.
    """
    fixed = ["--namespace", OPERATOR_NAMESPACE, "--timeout", _ROLLOUT_TIMEOUT]
    # The demo owns these objects, whoever applied the CRD by hand in between. Helm 3 neither knows nor needs this.
    if tools.output("helm", "version", "--short").startswith("v4"):
        fixed.append("--force-conflicts")
    # --wait would hide why a pod does not start; the rollout below tells.
    tools.output("helm", "upgrade", "diffusion-operator", str(chart), *fixed, *options, what="helm upgrade")
    wait_for_rollout(tools, "diffusion-operator", OPERATOR_NAMESPACE)


def install_hub(tools: Tools, image: str, namespace: str) -> None:
    """Apply the hub and wait until it answers; DemoError where it does not."""
    tools.apply(hub.manifest(namespace, image))
    wait_for_rollout(tools, hub.NAME, namespace)


def wait_for_rollout(tools: Tools, deployment: str, namespace: str) -> None:
    """Wait until a Deployment's new pods are ready; DemoError with the pods' own words where they are not."""
    try:
        where = ("-n", namespace, f"--timeout={_ROLLOUT_TIMEOUT}")
        tools.output("kubectl", "rollout", "status", f"deployment/{deployment}", *where)
    except DemoError as error:
        pods = tools.output("kubectl", "get", "pods,events", "-n", namespace)
        raise DemoError(f"{deployment} does not start.\n{error}\n{pods[-1500:]}") from error


def apply_pipeline(tools: Tools, namespace: str, gpu_product: str = "") -> str:
    """Apply examples/pipeline.yaml, for a GPU where one is named; return the pipeline's name.

    Raises:
        DemoError: The file names another revision than the checkpoint in this checkout has.
    """
    text = PIPELINE_FILE.read_text()
    document = yaml.safe_load(text)
    check_revision(document["spec"]["model"]["source"]["huggingFace"]["revision"], CHECKPOINT)
    manifest = yaml.safe_dump(on_gpu(document, gpu_product)) if gpu_product else text
    # Right after the chart's first install the API server may not serve the new kind yet.
    for attempt in range(10):
        try:
            tools.output("kubectl", "apply", "-n", namespace, "-f", "-", stdin=manifest, what="kubectl apply")
            break
        except DemoError as error:
            if "no matches for kind" not in str(error) or attempt == 9:  # noqa: PLR2004 - the last of range(10)
                raise
            time.sleep(1)
    return str(document["metadata"]["name"])


def check_revision(revision: str, checkpoint: Path) -> None:
    """Raise DemoError unless `named` is the revision that the hub gives to this checkpoint."""
    actual = Repository.load(checkpoint).revision
    if revision != actual:
        raise DemoError(
            f"examples/pipeline.yaml names revision {revision}, but examples/demo-checkpoint is {actual}.\n"
            f"Write {actual} into the file (it is a digest of the checkpoint's files)."
        )


def split_reference(reference: str) -> tuple[str, str]:
    """Return (repository, tag) of an image reference; DemoError where it has no tag."""
    repository, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag:
        raise DemoError(f"The image {reference!r} has no tag. Name it as repository:tag.")
    return repository, tag

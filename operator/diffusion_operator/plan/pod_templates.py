"""What admission cannot know about a podTemplate: which claim is the store's."""

from collections.abc import Iterator, Mapping

from diffusion_contract.spec import DiffusionPipelineSpec, PodTemplate
from diffusion_contract.spec.pod_template import TemplateVolume
from diffusion_operator.settings import Settings


def pod_template_problem(spec: DiffusionPipelineSpec, settings: Settings, store: str) -> str | None:
    """Why a podTemplate cannot be used, or None.

    Args:
        spec: of the pipeline.
        settings: with the chart's podTemplate of Jobs.
        store: claim that holds the store; only the operator's own containers write to it.
    """
    templates: Mapping[str, PodTemplate | None] = {
        "spec.serving.podTemplate": spec.serving.pod_template,
        "spec.jobs.podTemplate": spec.jobs.pod_template if spec.jobs is not None else None,
        "spec.api.podTemplate": spec.api.pod_template if spec.api is not None else None,
        "The chart's jobs.podTemplate": settings.jobs.pod_template,
    }
    for field, template in templates.items():
        for index, volume in enumerate(_volumes(template)):
            if _writes_to(volume, store):
                return (
                    f"{field}.spec.volumes[{index}].persistentVolumeClaim: claim {store} holds the store, which only "
                    "the operator's containers write to: add readOnly: true, or use another claim."
                )
    return None


def _volumes(template: PodTemplate | None) -> Iterator[TemplateVolume]:
    spec = template.spec if template is not None else None
    yield from (spec.volumes or ()) if spec is not None else ()


def _writes_to(volume: TemplateVolume, claim: str) -> bool:
    source = volume.persistent_volume_claim or {}
    return source.get("claimName") == claim and source.get("readOnly") is not True

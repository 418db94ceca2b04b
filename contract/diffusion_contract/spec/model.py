"""Checkpoints and their sources."""

import re
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, ModelWrapValidatorHandler, ValidationInfo, model_validator

from diffusion_contract.base import BY_NAME, ApiModel, ObjectName, Rule
from diffusion_contract.enums import ModelFamily, PromptWeighting
from diffusion_contract.limits import COMMIT_PATTERN, CONTROL_NET_PATTERN, DIGEST_PATTERN, HUB_REPOSITORY_PATTERN
from diffusion_contract.tensors import MAX_CONTROLNETS

EXTENSION = "source"
"""Key of pydantic's context under which a reader names the subclass of Source that it allows."""


class SecretKey(ApiModel):
    """A key of a Secret in the pipeline's namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: Annotated[str, Field(max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] = Field(
        default="token", description="Key inside the Secret."
    )


class HuggingFaceSource(ApiModel):
    """A repository on a hub, pinned to one commit."""

    repo: Annotated[str, Field(max_length=200, pattern=HUB_REPOSITORY_PATTERN)] = Field(
        description="organization/name of the repository."
    )
    revision: Annotated[
        str,
        Field(max_length=64),
        Rule(
            f"self.matches('{COMMIT_PATTERN}')",
            "revision must be a full commit id (40 lower-case hex digits), not a branch or tag: "
            "copy it from the repository's commit page",
            lambda revision: re.fullmatch(COMMIT_PATTERN, revision) is not None,
        ),
    ] = Field(description="Commit of the repository, 40 lower-case hex digits.")
    token_secret_ref: SecretKey | None = Field(
        default=None, description="Access token for private repositories, for the download step only."
    )


class ClaimSource(ApiModel):
    """A checkpoint in diffusers layout on an existing PersistentVolumeClaim."""

    claim_name: ObjectName = Field(description="Claim in the pipeline's namespace; it is mounted read-only.")
    path: Annotated[
        str,
        Field(max_length=512),
        Rule(
            "!self.startsWith('/') && !self.split('/').exists(p, p == '..')",
            "path must be relative to the claim's root and must not contain '..'",
            lambda path: not path.startswith("/") and ".." not in path.split("/"),
        ),
    ] = Field(default=".", description="Folder of the checkpoint inside the claim; its links may lead anywhere in it.")
    version: Annotated[str, Field(max_length=63, pattern=r"^[-._A-Za-z0-9]+$")] | None = Field(
        default=None,
        description="Any string. A changed one reads the folder again: needed when its files were replaced.",
    )


class ArchiveSource(ApiModel):
    """A tar, tar.gz or zip file on a web server."""

    url: Annotated[str, Field(max_length=2048, pattern=r"^https?://[^\s]+$")] = Field(
        description="Address of the file."
    )
    sha256: Annotated[str, Field(max_length=64, pattern=DIGEST_PATTERN)] = Field(
        description="SHA-256 of the file, 64 lower-case hex digits."
    )


class Source(ApiModel):
    """A source: exactly one of huggingFace, persistentVolumeClaim and archive."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.huggingFace), has(self.persistentVolumeClaim), has(self.archive)].exists_one(x, x)",
            "source needs exactly one of huggingFace, persistentVolumeClaim and archive",
            lambda self: len(self.places()) == 1,
        ),
    )

    hugging_face: HuggingFaceSource | None = Field(default=None, description="A repository on a hub.")
    persistent_volume_claim: ClaimSource | None = Field(default=None, description="A folder on a claim.")
    archive: ArchiveSource | None = Field(default=None, description="A file on a web server.")
    subfolder: (
        Annotated[
            str,
            Field(max_length=256),
            Rule(
                "self != '' && !self.startsWith('/') && !self.split('/').exists(p, p == '..')",
                "subfolder must be a folder inside of the source, such as v2/large, and must not contain '..'",
                lambda path: bool(path) and not path.startswith("/") and ".." not in path.split("/"),
            ),
        ]
        | None
    ) = Field(default=None, description="Folder that is used as the root of the source.")
    variant: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9_-]+$")] | None = Field(
        default=None,
        description="Variant of the weights, such as fp16, if the source has several. Defaults to the plain ones, or "
        "to the only variant.",
    )

    def places(self) -> dict[str, Any]:
        """What says where it comes from, by field."""
        return self.model_dump(exclude_none=True, exclude={"subfolder", "variant"})

    @model_validator(mode="wrap")
    @classmethod
    def _extend(cls, value: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:  # noqa: ANN401 - not validated yet
        """Read it as the subclass that the context names, where it names one."""
        extension: type[Self] | None = (info.context or {}).get(EXTENSION) if cls is Source else None
        if extension is None or isinstance(value, Source):
            return handler(value)
        return extension.model_validate(value, by_alias=True, by_name=False)


SafetensorsFile = Annotated[str, Field(max_length=255, pattern=r"^[^/].*\.safetensors$")]


class ComponentOverride(ApiModel):
    """Replaces one component of the checkpoint."""

    source: Source = Field(description="A checkpoint, or the component alone.")


class ComponentOverrides(ApiModel):
    """Component overrides; only artifacts that depend on them are rebuilt."""

    text_encoder: ComponentOverride | None = Field(
        default=None, alias="text_encoder", description="Overrides the checkpoint's text encoder."
    )
    text_encoder_2: ComponentOverride | None = Field(
        default=None, alias="text_encoder_2", description="Overrides the second text encoder of StableDiffusionXL."
    )
    denoiser: ComponentOverride | None = Field(default=None, description="Overrides the checkpoint's denoiser (UNet).")
    vae: ComponentOverride | None = Field(default=None, description="Overrides the checkpoint's autoencoder (VAE).")

    def by_name(self) -> dict[str, ComponentOverride]:
        """Those that are given, by field."""
        fields = {
            "text_encoder": self.text_encoder,
            "text_encoder_2": self.text_encoder_2,
            "denoiser": self.denoiser,
            "vae": self.vae,
        }
        return {name: override for name, override in fields.items() if override is not None}


class Lora(ApiModel):
    """Low-rank additions to text encoder and denoiser, merged before export."""

    source: Source = Field(description="Source of the weights.")
    file: SafetensorsFile | None = Field(
        default=None, description="Name of the safetensors file, if the source has several."
    )
    weight: Annotated[float, Field(ge=-10, le=10)] = Field(default=1.0, description="Weight of the LoRA.")


class ControlNet(ApiModel):
    """ControlNet: conditions the denoiser on an image."""

    name: Annotated[str, Field(max_length=24, pattern=CONTROL_NET_PATTERN)] = Field(
        description="Part of the names of inputs, such as control_image_<name>."
    )
    source: Source = Field(description="Source of the weights.")


class IpAdapter(ApiModel):
    """IP-Adapter: conditions the denoiser on reference images."""

    source: Source = Field(
        description="Source of the weights; with its image encoder, unless that is set here or the checkpoint has one."
    )
    file: SafetensorsFile | None = Field(
        default=None, description="Name of the safetensors file, if the source has several."
    )
    image_encoder: ComponentOverride | None = Field(
        default=None, description="Image encoder that it was trained with, if it has another source."
    )


class Refiner(ApiModel):
    """Refiner of Stable Diffusion XL: a second denoiser for the last part of the denoising."""

    source: Source = Field(description="Source of the UNet: a refiner's checkpoint, or the component alone.")
    denoising_start: Annotated[float, Field(ge=0.05, le=0.95)] = Field(
        default=0.8,
        description="Fraction of the training timesteps after which it takes over, as in diffusers.",
    )


class SafetyChecker(ApiModel):
    """Safety checker: flagged images are returned black."""

    source: Source = Field(description="Source of the weights; only the folder safety_checker is fetched.")


class Model(ApiModel):
    """The checkpoint, with its overrides and add-ons."""

    rules = (
        Rule(
            "(has(self.family) && self.family == 'StableDiffusionXL') || !has(self.components) || "
            "!has(self.components.text_encoder_2)",
            "only StableDiffusionXL has a second text encoder: leave components.text_encoder_2 out, or set "
            "family to StableDiffusionXL",
            lambda self: self.is_xl or self.components is None or self.components.text_encoder_2 is None,
            ".components",
        ),
        Rule(
            "!has(self.promptWeighting) || self.promptWeighting != 'Compel' || !has(self.longPrompts) || "
            "!self.longPrompts",
            "promptWeighting Compel has prompts of one window: leave longPrompts out, or use A1111",
            lambda self: not (self.prompt_weighting is PromptWeighting.COMPEL and self.long_prompts),
            ".longPrompts",
        ),
        Rule(
            "(has(self.family) && self.family == 'StableDiffusionXL') || !has(self.refiner)",
            "only StableDiffusionXL has a refiner: leave refiner out, or set family to StableDiffusionXL",
            lambda self: self.is_xl or self.refiner is None,
            ".refiner",
        ),
        Rule(
            "!has(self.refiner) || ((!has(self.longPrompts) || !self.longPrompts) && "
            "(!has(self.promptWeighting) || self.promptWeighting == 'None'))",
            "a refiner reads prompts of one window without weights: leave longPrompts and promptWeighting out",
            lambda self: self.refiner is None or not (self.long_prompts or self.weighting),
            ".refiner",
        ),
    )

    source: Source = Field(description="Source of the checkpoint.")
    family: ModelFamily | None = Field(
        default=None, description="Architecture of the checkpoint. Defaults to StableDiffusion (1.x and 2.x)."
    )
    components: ComponentOverrides | None = Field(
        default=None, description="Component overrides; only artifacts that depend on them are rebuilt."
    )
    preview_vae: ComponentOverride | None = Field(
        default=None,
        description="Autoencoder that previews are decoded with, such as an AutoencoderTiny. Defaults to that of the "
        "images.",
    )
    loras: Annotated[list[Lora], Field(max_length=8)] | None = Field(
        default=None, description="LoRAs, merged in this order."
    )
    control_nets: Annotated[list[ControlNet], Field(max_length=MAX_CONTROLNETS), BY_NAME] | None = Field(
        default=None, description="ControlNets."
    )
    ip_adapter: IpAdapter | None = Field(default=None, description="IP-Adapter.")
    refiner: Refiner | None = Field(default=None, description="Refiner of Stable Diffusion XL.")
    safety_checker: SafetyChecker | None = Field(default=None, description="Safety checker of Stable Diffusion 1.x.")
    clip_skip: Annotated[int, Field(ge=0, le=11)] | None = Field(
        default=None, description="Number of last layers of the text encoders that are skipped."
    )
    long_prompts: bool | None = Field(default=None, description="Prompts of up to four windows of the text encoder.")
    prompt_weighting: PromptWeighting | None = Field(
        default=None,
        description="Syntax of weights in prompts: None, A1111 as in `(word:1.2)`, `[word]` and `BREAK`, or Compel as "
        "in `word++` and `(words)1.3`. Defaults to None: brackets and signs are text.",
    )
    guidance_rescale: bool | None = Field(default=None, description="Requests may set guidance_rescale.")

    @property
    def weighting(self) -> str:
        """Syntax of weights in prompts; empty without."""
        return "" if self.prompt_weighting in (None, PromptWeighting.NONE) else str(self.prompt_weighting)

    @property
    def denoising_start(self) -> float | None:
        """Fraction of the training timesteps after which the refiner takes over; None without one."""
        return self.refiner.denoising_start if self.refiner is not None else None

    @property
    def is_xl(self) -> bool:
        """Whether the checkpoint is of the family StableDiffusionXL."""
        return self.family is ModelFamily.STABLE_DIFFUSION_XL

"""diffusers' own pipelines in float32 on the CPU, made of the same parts."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from diffusion_builder.components import configs, lora, parts
from diffusion_builder.models.schedule import SchedulerType, calls_for
from diffusion_builder.parity import requests
from diffusion_builder.parity.accelerated import accelerated
from diffusion_builder.parity.families import LOCAL, family_of
from diffusion_builder.parity.in_process import GeneratedImages
from diffusion_builder.repository.tiers import read_scheduler_config, resolve_schedulers
from diffusion_contract.python_models import GENERATE, INPAINT
from diffusion_contract.spec import Scheduler

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from diffusion_builder.parity.provenance import Provenance
    from diffusion_builder.parity.requests import TestRequest
    from diffusion_contract.spec import Acceleration

# The libraries have no types.
_DIFFUSERS: Any = diffusers
_VISION: Any = CLIPVisionModelWithProjection
_CHECKER: Any = StableDiffusionSafetyChecker
# Runge-Kutta steps are what a checkpoint for this pipeline never means.
_SETTINGS: Mapping[str, Mapping[str, Any]] = {"PNDM": {"skip_prk_steps": True}}


class Reference:
    """Models of diffusers and transformers, loaded by their own loaders; LoRAs and clip skip are as for export.

    Args:
        provenance: folders and settings.
    """

    def __init__(self, provenance: Provenance) -> None:
        self._provenance = provenance
        folders = provenance.folders
        self._family = family_of(provenance)
        self._unet = _load("UNet2DConditionModel", folders[parts.UNET])
        vae_config = configs.read(folders[parts.VAE], parts.VAE)
        self._vae = _load(configs.TINY_VAE if configs.is_tiny(vae_config) else configs.KL_VAE, folders[parts.VAE])
        lora.merge(self._unet, parts.UNET, provenance.loras, provenance.family)
        self._adapted = False
        self._nets: dict[str, Any] = {}

    def generate(self, request: TestRequest, acceleration: Acceleration | None = None) -> GeneratedImages:
        """The images and latents of this request.

        Requests with an IP-Adapter come last: it stays in the UNet.

        Args:
            request: what is generated.
            acceleration: of the calls of the UNet.
        """
        pipe = self._pipeline(request)
        generators = [torch.Generator().manual_seed(seed) for seed in requests.SEEDS]
        shared: dict[str, Any] = {
            "generator": generators, "output_type": "latent", "return_dict": False,
            "guidance_scale": requests.GUIDANCE, "num_inference_steps": request.schedule_steps,
        }  # fmt: skip
        end = {} if self._refiner is None else {"denoising_end": self._provenance.denoising_start}
        with accelerated(self._unet, acceleration, self._calls(request)):
            latents = pipe(
                **self._arguments(request), **shared, **end, height=request.height, width=request.width
            )[0]  # fmt: skip
        if self._refiner is not None:
            latents = self._refine(request, latents, shared)
        with torch.no_grad():
            decoded = self._vae.decode(self._unscaled(latents)).sample
        images = pipe.image_processor.postprocess(decoded, output_type="pil")
        levels = np.stack([np.asarray(image) for image in images])
        return GeneratedImages(self._withhold_flagged(levels, images), latents.numpy())

    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents as the autoencoder has them."""
        config = self._vae.config
        factor = float(config.scaling_factor)
        if getattr(config, configs.LATENTS_MEAN, None) is None:
            return latents / factor
        mean, std = (torch.tensor(values)[:, None, None] for values in (config.latents_mean, config.latents_std))
        return latents * std / factor + mean

    def _refine(self, request: TestRequest, latents: torch.Tensor, shared: Mapping[str, Any]) -> torch.Tensor:
        """Go on with the refiner, which shares text encoder, tokenizer and autoencoder with its base."""
        components = self._family.components
        pipe = _DIFFUSERS.StableDiffusionXLImg2ImgPipeline(
            vae=self._vae, text_encoder=None, text_encoder_2=components["text_encoder_2"], tokenizer=None,
            tokenizer_2=components["tokenizer_2"], unet=self._refiner, scheduler=self._scheduler(request.scheduler),
            requires_aesthetics_score=True, force_zeros_for_empty_prompt=False, add_watermarker=False,
        )  # fmt: skip
        pipe.set_progress_bar_config(disable=True)
        texts = {"prompt": list(requests.PROMPTS), "negative_prompt": list(requests.NEGATIVE)}
        refined: torch.Tensor = pipe(
            **texts, **shared, image=latents, denoising_start=self._provenance.denoising_start
        )[0]
        return refined

    @cached_property
    def _refiner(self) -> Any:  # noqa: ANN401 - the library has no types
        folder = self._provenance.refiner
        return None if folder is None else _load("UNet2DConditionModel", folder)

    def _withhold_flagged(self, levels: NDArray[np.uint8], images: Sequence[Image.Image]) -> NDArray[np.uint8]:
        """The images, black where the safety checker withholds them."""
        checker = self._checker
        if checker is None:
            return levels
        clip_input = _processor(checker.config.vision_config.image_size)(images, return_tensors="pt").pixel_values
        with torch.no_grad():
            _, flagged = checker(images=list(levels), clip_input=clip_input)
        return np.where(np.array(flagged)[:, None, None, None], np.uint8(0), levels)

    @cached_property
    def _checker(self) -> Any:  # noqa: ANN401 - the library has no types
        folder = self._provenance.folders.get(parts.SAFETY_CHECKER)
        return None if folder is None else _CHECKER.from_pretrained(folder, **LOCAL).eval()

    def _pipeline(self, request: TestRequest) -> Any:  # noqa: ANN401 - the library has no types
        control = {"controlnet": [self._net(name) for name in request.control_nets]}
        pipe = self._family.pipeline_class(request.task, is_controlled=bool(request.control_nets))(
            vae=self._vae, unet=self._unet, scheduler=self._scheduler(request.scheduler), **self._family.components,
            **(self._vision if request.ip_adapter else {"feature_extractor": None}),
            **(control if request.control_nets else {}),
        )  # fmt: skip
        pipe.set_progress_bar_config(disable=True)
        if request.ip_adapter:
            self._adapt(pipe)
        return pipe

    def _calls(self, request: TestRequest) -> int:
        """Calls of the UNet."""
        return calls_for(SchedulerType(str(self._resolved_scheduler(request.scheduler).type)), request.steps)

    def _resolved_scheduler(self, name: str) -> Scheduler:
        config = read_scheduler_config(self._provenance.checkpoint)
        listed = resolve_schedulers([Scheduler.model_validate(one) for one in self._provenance.schedulers], config)
        return next((one for one in listed if one.request_name == name), listed[0])

    def _scheduler(self, name: str) -> Any:  # noqa: ANN401 - the library has no types
        config, scheduler = read_scheduler_config(self._provenance.checkpoint), self._resolved_scheduler(name)
        kind = str(scheduler.type)
        names = (f"{kind}Scheduler", f"{kind}DiscreteScheduler")
        scheduler_class = next(getattr(_DIFFUSERS, name) for name in names if hasattr(_DIFFUSERS, name))
        return scheduler_class.from_config(config, **{**_SETTINGS.get(kind, {}), **scheduler.overrides()})

    def _net(self, name: str) -> Any:  # noqa: ANN401 - the library has no types
        if name not in self._nets:
            self._nets[name] = _load("ControlNetModel", self._provenance.control_nets[name])
        return self._nets[name]

    @cached_property
    def _vision(self) -> dict[str, Any]:
        folder = self._provenance.folders[parts.IMAGE_ENCODER]
        encoder = _VISION.from_pretrained(folder, **LOCAL)
        return {"image_encoder": encoder.eval(), "feature_extractor": _processor(encoder.config.image_size)}

    def _adapt(self, pipe: Any) -> None:  # noqa: ANN401 - the library has no types
        folder = self._provenance.ip_adapter
        if folder is not None and not self._adapted:
            pipe.load_ip_adapter(str(folder), subfolder="", weight_name=_file(folder), image_encoder_folder=None)
            self._adapted = True
        pipe.set_ip_adapter_scale(requests.IP_ADAPTER_WEIGHT)

    def _arguments(self, request: TestRequest) -> dict[str, Any]:
        arguments: dict[str, Any] = {**self._family.arguments(request)}
        if request.embeddings is None:
            arguments |= self._family.texts(requests.PROMPTS, requests.NEGATIVE)
        else:
            negative, positive = (torch.from_numpy(request.embeddings[:, side].copy()) for side in (0, 1))
            arguments |= {"prompt_embeds": positive, "negative_prompt_embeds": negative}
        if request.task != GENERATE:
            arguments |= {"image": [Image.fromarray(request.image())] * 2, "strength": request.strength}
        if request.task == INPAINT:
            arguments["mask_image"] = [Image.fromarray(request.mask())] * 2
        if request.control_nets:
            name = "image" if request.task == GENERATE else "control_image"
            arguments[name] = [Image.fromarray(request.control()) for _ in request.control_nets]
            arguments["controlnet_conditioning_scale"] = [requests.CONTROL_SCALE] * len(request.control_nets)
        if request.ip_adapter:
            arguments["ip_adapter_image"] = [Image.fromarray(request.image())]
        return arguments


def _processor(size: int) -> Any:  # noqa: ANN401 - the library has no types
    return CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def _load(name: str, folder: Path) -> Any:  # noqa: ANN401 - the library has no types
    # The other way of loading needs one more library.
    return getattr(_DIFFUSERS, name).from_pretrained(folder, low_cpu_mem_usage=False, **LOCAL).eval()


def _file(folder: Path) -> str:
    return next(path.name for path in sorted(folder.glob("*.safetensors")))

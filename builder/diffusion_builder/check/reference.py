"""diffusers' own pipelines in float32 on the CPU, made of the same parts."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from diffusion_builder.check import question as asked
from diffusion_builder.check.served import Drawn
from diffusion_builder.components import lora, parts, text_encoder
from diffusion_builder.repository.python_models import GENERATE, IMG2IMG, INPAINT
from diffusion_builder.repository.spec import SchedulerSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from diffusion_builder.check.ingredients import Ingredients
    from diffusion_builder.check.question import Question

# The libraries have no types.
_DIFFUSERS: Any = diffusers
_CLIP: Any = CLIPTextModel
_VISION: Any = CLIPVisionModelWithProjection
_TOKENIZER: Any = CLIPTokenizer
_CHECKER: Any = StableDiffusionSafetyChecker
_PIPELINES = {
    (GENERATE, False): "StableDiffusionPipeline",
    (IMG2IMG, False): "StableDiffusionImg2ImgPipeline",
    (INPAINT, False): "StableDiffusionInpaintPipeline",
    (GENERATE, True): "StableDiffusionControlNetPipeline",
    (IMG2IMG, True): "StableDiffusionControlNetImg2ImgPipeline",
    (INPAINT, True): "StableDiffusionControlNetInpaintPipeline",
}
# Runge-Kutta steps are what a checkpoint for this pipeline never means.
_SETTINGS: Mapping[str, Mapping[str, Any]] = {"PNDM": {"skip_prk_steps": True}}


_LOCAL: Mapping[str, Any] = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}


class Reference:
    """Models of diffusers and transformers, loaded by their own loaders; LoRAs and clip skip are as for export.

    Args:
        ingredients: folders and settings.
    """

    def __init__(self, ingredients: Ingredients) -> None:
        self._ingredients = ingredients
        folders, loras = ingredients.folders, ingredients.loras
        self._text = _CLIP.from_pretrained(folders[parts.TEXT_ENCODER], **_LOCAL).eval()
        self._unet = _load("UNet2DConditionModel", folders[parts.UNET])
        self._vae = _load("AutoencoderKL", folders[parts.VAE])
        self._tokenizer = _TOKENIZER.from_pretrained(ingredients.checkpoint / "tokenizer", local_files_only=True)
        lora.merge(self._text, parts.TEXT_ENCODER, loras, text_encoder.OPTIONAL_PREFIX)
        if ingredients.clip_skip:
            # diffusers' own clip_skip looks for a layer that this version of transformers calls otherwise.
            text_encoder.skip(self._text, ingredients.clip_skip)
        lora.merge(self._unet, parts.UNET, loras)
        self._adapted = False
        self._nets: dict[str, Any] = {}

    def draw(self, question: Question) -> Drawn:
        """The pictures and latents that this question should give.

        Questions with an IP-Adapter come last: it stays in the UNet.
        """
        pipe = self._pipeline(question)
        generators = [torch.Generator().manual_seed(seed) for seed in asked.SEEDS]
        latents = pipe(
            **self._arguments(question), generator=generators, output_type="latent", return_dict=False,
            guidance_scale=asked.GUIDANCE, num_inference_steps=question.schedule_steps,
            height=question.height, width=question.width,
        )[0]  # fmt: skip
        with torch.no_grad():
            decoded = self._vae.decode(latents / self._vae.config.scaling_factor).sample
        pictures = pipe.image_processor.postprocess(decoded, output_type="pil")
        levels = np.stack([np.asarray(picture) for picture in pictures])
        return Drawn(self._allowed(levels, pictures), latents.numpy())

    def _allowed(self, levels: NDArray[np.uint8], pictures: Sequence[Image.Image]) -> NDArray[np.uint8]:
        """The pictures, black where the safety checker withholds them."""
        checker = self._checker
        if checker is None:
            return levels
        seen = _processor(checker.config.vision_config.image_size)(pictures, return_tensors="pt").pixel_values
        with torch.no_grad():
            _, flagged = checker(images=list(levels), clip_input=seen)
        return np.where(np.array(flagged)[:, None, None, None], np.uint8(0), levels)

    @cached_property
    def _checker(self) -> Any:  # noqa: ANN401 - the library has no types
        folder = self._ingredients.folders.get(parts.SAFETY_CHECKER)
        return None if folder is None else _CHECKER.from_pretrained(folder, **_LOCAL).eval()

    def _pipeline(self, question: Question) -> Any:  # noqa: ANN401 - the library has no types
        control = {"controlnet": [self._net(name) for name in question.control_nets]}
        pipe = getattr(_DIFFUSERS, _PIPELINES[question.task, bool(question.control_nets)])(
            vae=self._vae, text_encoder=self._text, tokenizer=self._tokenizer, unet=self._unet,
            scheduler=self._scheduler(question.scheduler), safety_checker=None, requires_safety_checker=False,
            **(self._vision if question.ip_adapter else {"feature_extractor": None}),
            **(control if question.control_nets else {}),
        )  # fmt: skip
        pipe.set_progress_bar_config(disable=True)
        if question.ip_adapter:
            self._adapt(pipe)
        return pipe

    def _scheduler(self, name: str) -> Any:  # noqa: ANN401 - the library has no types
        listed = [SchedulerSpec.model_validate(one) for one in self._ingredients.schedulers]
        wanted = next((one for one in listed if one.label == name), listed[0])
        kind = str(wanted.type)
        names = (f"{kind}Scheduler", f"{kind}DiscreteScheduler")
        found = next(getattr(_DIFFUSERS, name) for name in names if hasattr(_DIFFUSERS, name))
        path = self._ingredients.checkpoint / "scheduler" / "scheduler_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        return found.from_config(config, **{**_SETTINGS.get(kind, {}), **wanted.overrides()})

    def _net(self, name: str) -> Any:  # noqa: ANN401 - the library has no types
        if name not in self._nets:
            self._nets[name] = _load("ControlNetModel", self._ingredients.control_nets[name])
        return self._nets[name]

    @cached_property
    def _vision(self) -> dict[str, Any]:
        folder = self._ingredients.folders[parts.IMAGE_ENCODER]
        encoder = _VISION.from_pretrained(folder, **_LOCAL)
        return {"image_encoder": encoder.eval(), "feature_extractor": _processor(encoder.config.image_size)}

    def _adapt(self, pipe: Any) -> None:  # noqa: ANN401 - the library has no types
        folder = self._ingredients.ip_adapter
        if folder is not None and not self._adapted:
            pipe.load_ip_adapter(str(folder), subfolder="", weight_name=_file(folder), image_encoder_folder=None)
            self._adapted = True
        pipe.set_ip_adapter_scale(asked.IP_ADAPTER_WEIGHT)

    def _arguments(self, question: Question) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if question.embeddings is None:
            found |= {"prompt": list(asked.PROMPTS), "negative_prompt": list(asked.NEGATIVE)}
        else:
            negative, positive = (torch.from_numpy(question.embeddings[:, side].copy()) for side in (0, 1))
            found |= {"prompt_embeds": positive, "negative_prompt_embeds": negative}
        if question.task != GENERATE:
            found |= {"image": [Image.fromarray(question.picture())] * 2, "strength": question.strength}
        if question.task == INPAINT:
            found["mask_image"] = [Image.fromarray(question.mask())] * 2
        if question.control_nets:
            name = "image" if question.task == GENERATE else "control_image"
            found[name] = [Image.fromarray(question.control()) for _ in question.control_nets]
            found["controlnet_conditioning_scale"] = [asked.CONTROL_SCALE] * len(question.control_nets)
        if question.ip_adapter:
            found["ip_adapter_image"] = [Image.fromarray(question.picture())]
        return found


def _processor(size: int) -> Any:  # noqa: ANN401 - the library has no types
    return CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def _load(name: str, folder: Path) -> Any:  # noqa: ANN401 - the library has no types
    # The other way of loading needs one more library.
    return getattr(_DIFFUSERS, name).from_pretrained(folder, low_cpu_mem_usage=False, **_LOCAL).eval()


def _file(folder: Path) -> str:
    return next(path.name for path in sorted(folder.glob("*.safetensors")))

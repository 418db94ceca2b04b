"""What the conditioner computes: first states, schedules, noise and scales, and whether a request is valid.

Pure numpy, so that it is tested without Triton.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from . import guidance_inputs, postprocess_numbers, python_models, size_inputs, tensors
from .conditioner_config import EnsembleRef
from .errors import InvalidRequest
from .initial_latents import ImageMoments, image_start, inpaint_start, make_schedule, noise_start
from .noise import Generator
from .python_models import GENERATE, INPAINT
from .request_inputs import NumberInput, RequestInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from .conditioner_config import ConditionerConfig, TaskDefaults
    from .initial_latents import InitialState, Moments
    from .noise import Floats
    from .request_inputs import Array, ReadTensor
    from .schedule import Schedule
    from .tensors import Tensor

_DEFAULT_SEED = 0
_ETA = NumberInput(python_models.ETA, 0.0, 0.0, 1.0)
# Outputs of which there are several: each has a part of its name behind the prefix.
_TABLE, _NOISE = f"{tensors.TABLE.name}_", f"{tensors.NOISE.name}_"
_CONTROL_SCALES = f"{tensors.CONTROL_SCALES.name}_"


def compute_outputs(config: ConditionerConfig, read: ReadTensor, output_names: Collection[str]) -> Mapping[str, Array]:
    """Answer a request.

    Args:
        config: of the repository.
        read: the request's tensors [B, ...].
        output_names: the requested ones, exactly one `table_<task>_<steps>[_<scheduler>]` among them.

    Returns:
        The requested tensors [B, ...].

    Raises:
        InvalidRequest: an input is not supported, also one of the postprocessor's.
    """
    work = _Conditioning(config, RequestInputs.of(read), frozenset(output_names))
    work.check_postprocess()
    return {name: np.ascontiguousarray(work.output(name)) for name in sorted(output_names)}


class _Conditioning:
    """One request; what several outputs need is computed once."""

    def __init__(self, config: ConditionerConfig, inputs: RequestInputs, output_names: frozenset[str]) -> None:
        self._config, self._inputs, self._output_names = config, inputs, output_names
        self._outputs: Mapping[Tensor, Callable[[], Array]] = {
            tensors.LEVELS: lambda: np.stack([schedule.levels for schedule in self._schedules]),
            tensors.STATE: self._state,
            tensors.MODEL_INPUT: self._model_input,
            tensors.TIMESTEP: lambda: np.stack([schedule.levels[0, :1] for schedule in self._schedules]),
            tensors.STEP_INDEX: lambda: np.zeros((inputs.batch, 1), np.int32),
            tensors.GUIDANCE: lambda: self._guidance,
            tensors.GUIDANCE_RESCALE: lambda: guidance_inputs.guidance_rescale(inputs),
            python_models.ZERO_NOISE: lambda: np.zeros((inputs.batch, *self._shape), np.float32),
            tensors.IMAGE_LATENT_AND_NOISE: lambda: np.stack(
                [np.stack([start.image_latent, start.noise]) for start in self._starts]
            ),
            python_models.STEP_MASK: self._step_mask,
            tensors.MASKED_LATENT: lambda: np.stack([start.masked for start in self._starts]),
            python_models.REQUEST_TEXT_EMBEDDINGS: lambda: guidance_inputs.text_embeddings(
                config, inputs, self._guidance
            ),
            python_models.REQUEST_POOLED_EMBEDDINGS: lambda: guidance_inputs.pooled_embeddings(
                config, inputs, self._guidance
            ),
            tensors.TIME_IDS: lambda: size_inputs.time_ids(inputs, *self._pixels),
            tensors.REFINER_TIME_IDS: lambda: size_inputs.refiner_time_ids(inputs, *self._pixels),
            python_models.VALIDATED_INPUT_IDS: lambda: self._copy_of(tensors.INPUT_IDS),
            python_models.VALIDATED_REFERENCE_PIXELS: lambda: self._copy_of(tensors.REFERENCE_PIXELS),
            python_models.ZERO_IMAGE_EMBEDDINGS: lambda: np.zeros((inputs.batch, 2, *config.image), np.float32),
            tensors.IP_ADAPTER_SCALE: lambda: guidance_inputs.ip_adapter_scale(
                inputs, has_reference=not self._is_requested(python_models.ZERO_IMAGE_EMBEDDINGS)
            ),
            python_models.FULL_IP_ADAPTER_REGION: lambda: np.ones((inputs.batch, 1, *self._shape[1:]), np.float32),
        }

    def check_postprocess(self) -> None:
        """Reject what could not be done with images of this size.

        Raises:
            InvalidRequest: with the input's name.
        """
        height, width = self._pixels
        postprocess_numbers.check(self._inputs, width, height)

    def output(self, name: str) -> Array:
        """Compute one of the outputs."""
        if name.startswith(_TABLE):
            return np.stack([schedule.padded(self._config.slots) for schedule in self._schedules])
        if name.startswith(_NOISE):
            return self._call_noise[int(name.removeprefix(_NOISE))]
        if name.startswith(_CONTROL_SCALES):
            calls = self._schedules[0].calls
            return guidance_inputs.control_scales(self._inputs, name.removeprefix(_CONTROL_SCALES), calls)
        return next(compute() for tensor, compute in self._outputs.items() if tensor.name == name)

    def _is_requested(self, tensor: Tensor) -> bool:
        return tensor.name in self._output_names

    def _copy_of(self, tensor: Tensor) -> Array:
        """An input that is passed through."""
        return np.asarray(self._inputs.read(tensor.name))

    @cached_property
    def _ensemble(self) -> EnsembleRef:
        keys = [name.removeprefix(_TABLE) for name in self._output_names if name.startswith(_TABLE)]
        if len(keys) != 1:
            raise InvalidRequest(f"an ensemble maps one table, this one maps {len(keys)}: build it again")
        has_zero_embeddings = self._is_requested(python_models.ZERO_IMAGE_EMBEDDINGS)
        has_feature = {
            python_models.CONTROLNET: any(name.startswith(_CONTROL_SCALES) for name in self._output_names),
            python_models.IP_ADAPTER: self._is_requested(tensors.IP_ADAPTER_SCALE) and not has_zero_embeddings,
            python_models.EMBEDDINGS: self._is_requested(python_models.REQUEST_TEXT_EMBEDDINGS),
        }
        return EnsembleRef.of(keys[0], tuple(feature for feature, is_present in has_feature.items() if is_present))

    @cached_property
    def _strengths(self) -> Sequence[float]:
        if self._ensemble.task == GENERATE:
            return [1.0] * self._inputs.batch
        default = self._defaults.strength
        return self._inputs.numbers(NumberInput(python_models.STRENGTH, default, 0.0, 1.0, above_low=True))

    @property
    def _defaults(self) -> TaskDefaults:
        return self._config.defaults[self._ensemble.task]

    @cached_property
    def _guidance(self) -> Floats:
        return guidance_inputs.guidance(self._inputs, self._defaults.guidance_scale)

    @cached_property
    def _schedules(self) -> Sequence[Schedule]:
        names = self._inputs.texts(python_models.SCHEDULER, self._ensemble.scheduler or self._config.default)
        etas = self._inputs.numbers(_ETA)
        schedules = [
            make_schedule(self._config, self._ensemble, name, strength, eta)
            for name, strength, eta in zip(names, self._strengths, etas, strict=True)
        ]
        draws_noise = any(any(schedule.draws) for schedule in schedules)
        if draws_noise and not any(name.startswith(_NOISE) for name in self._output_names):
            raise InvalidRequest("eta is not supported by this ensemble, whose steps draw no noise: leave it out")
        return schedules

    @cached_property
    def _shape(self) -> tuple[int, int, int]:
        """Of a latent: the input image's, or that of height and width."""
        for tensor in (tensors.LATENT_MEAN, python_models.MASKED_MEAN):
            mean = self._inputs.finite(tensor)
            if mean is not None:
                return self._config.channels, mean.shape[2], mean.shape[3]
        height, width = self._config.sizes.of(self._inputs)
        factor = self._config.pixels_per_latent
        return self._config.channels, height // factor, width // factor

    @property
    def _pixels(self) -> tuple[int, int]:
        """Height and width of the images."""
        _, height, width = self._shape
        return height * self._config.pixels_per_latent, width * self._config.pixels_per_latent

    @cached_property
    def _generators(self) -> Sequence[Generator]:
        return [Generator(seed) for seed in self._inputs.scalars(python_models.SEED, _DEFAULT_SEED)]

    @cached_property
    def _starts(self) -> Sequence[InitialState]:
        return [self._start(index) for index in range(self._inputs.batch)]

    def _start(self, index: int) -> InitialState:
        schedule, generator = self._schedules[index], self._generators[index]
        if self._ensemble.task == GENERATE:
            return noise_start(schedule, generator, self._shape)
        image = self._moments(index, tensors.LATENT_MEAN, tensors.LATENT_STD)
        if self._ensemble.task == INPAINT:
            masked = self._moments(index, python_models.MASKED_MEAN, python_models.MASKED_STD)
            return inpaint_start(
                schedule, generator, ImageMoments(image, masked), inpainting_unet=self._config.inpainting,
                from_noise=self._strengths[index] == 1.0,
            )  # fmt: skip
        if image is None:
            raise InvalidRequest("input_image is missing: send the image to start from")
        return image_start(schedule, generator, image)

    def _moments(self, index: int, mean_tensor: Tensor, deviation_tensor: Tensor) -> Moments | None:
        mean, deviation = self._inputs.finite(mean_tensor), self._inputs.finite(deviation_tensor)
        if mean is None or deviation is None:
            return None
        return mean[index], None if self._config.deterministic_encoder else deviation[index]

    @cached_property
    def _call_noise(self) -> Sequence[Floats]:
        """Fresh noise [B, C, h, w] of each call, drawn after that of the first state."""
        _ = self._starts
        last = max(int(name.removeprefix(_NOISE)) for name in self._output_names if name.startswith(_NOISE))
        calls = [np.zeros((self._inputs.batch, *self._shape), np.float32) for _ in range(last + 1)]
        for index, (schedule, generator) in enumerate(zip(self._schedules, self._generators, strict=True)):
            for noise, draws in zip(calls, schedule.draws, strict=False):
                if draws:
                    noise[index] = generator.normal(self._shape)
        return calls

    def _state(self) -> Floats:
        state = np.zeros((self._inputs.batch, self._config.slots, *self._shape), np.float32)
        for slots, start in zip(state, self._starts, strict=True):
            slots[0] = start.latent
        return state

    def _model_input(self) -> Floats:
        pairs = zip(self._starts, self._schedules, strict=True)
        return np.stack([start.latent * np.float32(schedule.input_scale) for start, schedule in pairs])

    def _step_mask(self) -> Array:
        """1 where the step's latent is taken, 0 where the image is retained: everywhere 1 unless the step repaints."""
        mask = self._inputs.finite(tensors.LATENT_MASK) if self._ensemble.task == INPAINT else None
        if mask is None or self._config.inpainting:
            return np.ones((self._inputs.batch, 1, *self._shape[1:]), np.float32)
        return mask

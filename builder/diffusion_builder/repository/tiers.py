"""Tiers of a repository: one ensemble per task and step count."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.models.schedule import ScheduleError, SchedulerSettings, SchedulerType, loop_for, schedule
from diffusion_builder.repository.unroll import Tier
from diffusion_builder.sources import read_json
from diffusion_contract import python_models
from diffusion_contract.enums import ModelFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from diffusion_contract.assembly import AssembleSpec, EnsembleSpec
    from diffusion_contract.spec import Scheduler


@dataclass(frozen=True)
class NamedScheduler:
    """A scheduler that requests may choose.

    Args:
        name: in requests.
        settings: as the checkpoint and the specification say.
    """

    name: str
    settings: SchedulerSettings


def validated_schedulers(
    checkpoint: Path,
    listed: Sequence[Scheduler],
    pipelines: Iterable[EnsembleSpec],
    family: ModelFamily,
    denoising_start: float | None = None,
) -> tuple[tuple[NamedScheduler, ...], int]:
    """Make every schedule that will be served.

    Args:
        checkpoint: folder with scheduler/scheduler_config.json.
        listed: all schedulers that are requested.
        pipelines: with their step counts.
        family: of the checkpoint.
        denoising_start: fraction of the denoising after which a refiner takes over; None without one.

    Returns:
        What requests may choose, and the state slots of the scheduler that has most.

    Raises:
        BadInputError: the checkpoint's configuration, the settings and the step counts do not go together.
    """
    schedulers = named_schedulers(listed, read_scheduler_config(checkpoint), family)
    return schedulers, slots(schedulers, sorted({steps for item in pipelines for steps in item.steps}), denoising_start)


def read_scheduler_config(checkpoint: Path) -> Mapping[str, Any]:
    """Read scheduler_config.json; model_index.json names the class where the file itself does not.

    Raises:
        BadInputError: one of the files cannot be read.
    """
    config = read_json(checkpoint, "scheduler/scheduler_config.json")
    if "_class_name" in config or not (checkpoint / "model_index.json").is_file():
        return config
    entry = read_json(checkpoint, "model_index.json").get("scheduler")
    return {**config, "_class_name": entry[1]} if isinstance(entry, list) and len(entry) > 1 else config


def named_schedulers(
    listed: Sequence[Scheduler], config: Mapping[str, Any], family: ModelFamily = ModelFamily.STABLE_DIFFUSION
) -> tuple[NamedScheduler, ...]:
    """Read the checkpoint's configuration as each of the listed schedulers would.

    Args:
        listed: as specified.
        config: the checkpoint's scheduler_config.json.
        family: of the checkpoint.

    Raises:
        BadInputError: a setting is not supported.
    """
    is_forced = family is ModelFamily.STABLE_DIFFUSION
    try:
        resolved = resolve_schedulers(listed, config)
        return tuple(
            NamedScheduler(
                one.request_name,
                SchedulerSettings.from_config(
                    SchedulerType(str(one.type)), config, one.overrides(), is_forced=is_forced
                ),
            )
            for one in resolved
        )
    except (ScheduleError, ValueError) as error:
        raise BadInputError(Reason.UNSUPPORTED_SCHEDULER, str(error)) from error


def resolve_schedulers(listed: Sequence[Scheduler], config: Mapping[str, Any]) -> tuple[Scheduler, ...]:
    """Take the checkpoint's own type where none is set.

    Args:
        listed: as specified.
        config: the checkpoint's scheduler_config.json.

    Raises:
        ValueError: the checkpoint's scheduler is not supported, or two have the same name in requests.
    """
    schedulers = tuple(one.resolve(str(config.get("_class_name", ""))) for one in listed)
    names = [one.request_name for one in schedulers]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two schedulers have the name {repeated[0]} in requests: set another name")
    return schedulers


def slots(schedulers: Sequence[NamedScheduler], steps: Sequence[int], denoising_start: float | None = None) -> int:
    """State slots of the scheduler that has most.

    Raises:
        BadInputError: a scheduler has no schedule of so many steps, or a refiner cannot take over in it.
    """
    most = 0
    for one in schedulers:
        for count in steps:
            try:
                loop_for(one.settings, count, denoising_start)
                most = max(most, schedule(one.settings, count).slots)
            except ScheduleError as error:
                raise BadInputError(
                    Reason.UNSUPPORTED_SCHEDULER, f"{count} steps of scheduler {one.name}: {error}"
                ) from error
    return most


def tiers(spec: AssembleSpec, schedulers: Sequence[NamedScheduler]) -> tuple[Tier, ...]:
    """All ensembles of a repository.

    The schedulers that call the denoiser as often as the default one share an ensemble; each other one has its own.
    """
    return tuple(
        replace(tier, acceleration=spec.acceleration)
        for pipeline in spec.pipelines
        for steps in pipeline.steps
        for tier in _tiers(pipeline, steps, schedulers, spec.denoising_start)
    )


def _tiers(
    pipeline: EnsembleSpec, steps: int, schedulers: Sequence[NamedScheduler], denoising_start: float | None
) -> Iterator[Tier]:
    loops = {one.name: loop_for(one.settings, steps, denoising_start) for one in schedulers}
    usual = loops[schedulers[0].name]
    shared = [one for one in schedulers if loops[one.name] == usual]
    yield _tier(pipeline, steps, shared, None, usual)
    for one in schedulers:
        if one not in shared:
            yield _tier(pipeline, steps, [one], one.name, loops[one.name])


def _tier(
    pipeline: EnsembleSpec,
    steps: int,
    schedulers: Sequence[NamedScheduler],
    name: str | None,
    loop: tuple[int, int],
) -> Tier:
    calls, base_calls = loop
    return Tier(
        pipeline.task,
        steps,
        calls,
        tuple(feature for feature in python_models.FEATURES if feature in pipeline.features),
        name,
        is_stochastic=any(one.settings.is_stochastic for one in schedulers),
        previews=tuple(sorted(count for count in pipeline.previews if count < calls)),
        refiner_calls=calls - base_calls,
    )

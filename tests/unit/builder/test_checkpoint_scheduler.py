"""Where a spec names no scheduler, requests get the one that the checkpoint was published with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import diffusers
import pytest

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.models.schedule import SchedulerType
from diffusion_builder.repository.tiers import named_schedulers, read_scheduler_config
from diffusion_contract.spec import Scheduler
from tests.support.builder.files import write_json

if TYPE_CHECKING:
    from pathlib import Path


def class_name(type_: SchedulerType) -> str:
    """Name of diffusers' class of a scheduler."""
    names = (f"{type_}Scheduler", f"{type_}DiscreteScheduler")
    return next(name for name in names if hasattr(diffusers, name))


@pytest.mark.parametrize("type_", SchedulerType)
def test_the_type_is_that_of_the_checkpoint(type_: SchedulerType) -> None:
    (scheduler,) = named_schedulers((Scheduler(),), {"_class_name": class_name(type_)})
    assert (scheduler.name, scheduler.settings.type) == (type_.lower(), type_)


def test_settings_beside_it_are_those_of_the_spec() -> None:
    listed = (Scheduler(name="spaced", timestep_spacing="trailing"),)
    (scheduler,) = named_schedulers(listed, {"_class_name": "EulerDiscreteScheduler"})
    assert (scheduler.name, scheduler.settings.timestep_spacing) == ("spaced", "trailing")


def test_a_type_in_the_spec_wins() -> None:
    (scheduler,) = named_schedulers((Scheduler(type="Heun"),), {"_class_name": "PNDMScheduler"})
    assert scheduler.settings.type is SchedulerType.HEUN


def test_the_index_names_it_where_the_file_does_not(tmp_path: Path) -> None:
    write_json(tmp_path / "scheduler" / "scheduler_config.json", {"beta_start": 0.1})
    write_json(tmp_path / "model_index.json", {"scheduler": ["diffusers", "PNDMScheduler"]})
    assert read_scheduler_config(tmp_path) == {"beta_start": 0.1, "_class_name": "PNDMScheduler"}


@pytest.mark.parametrize("config", [{"_class_name": "DPMSolverSDEScheduler"}, {}])
def test_one_that_is_not_supported_is_rejected_with_what_to_set(config: dict[str, str]) -> None:
    with pytest.raises(BadInputError, match=r"set spec\.scheduler\.type") as caught:
        named_schedulers((Scheduler(),), config)
    assert caught.value.reason == Reason.UNSUPPORTED_SCHEDULER


def test_two_of_one_name_are_rejected() -> None:
    with pytest.raises(BadInputError, match="two schedulers have the name ddim"):
        named_schedulers((Scheduler(), Scheduler(type="DDIM")), {"_class_name": "DDIMScheduler"})

"""Numbers of the README and the documentation are those of the code, configuration or test that they come from."""

from __future__ import annotations

import re

import pytest

from diffusion_builder.models.schedule.classes import SchedulerType
from diffusion_builder.store.staging import STAGING_GRACE_SECONDS
from diffusion_contract.tensors import MAX_STEPS
from tests.support.paths import ROOT

_PAGES_WITH_GO = ("README.md", "CONTRIBUTING.md")
_PAGES_WITH_PARITY = ("README.md", "docs/builder.md", "CHANGELOG.md")
_COUNTS = {"eleven": 11, "thirteen": 13}


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def parity_limits() -> dict[str, set[float]]:
    """Minimum PSNR in dB by precision, from the builder's table, in whichever module it is."""
    limits: dict[str, set[float]] = {}
    for path in (ROOT / "builder" / "diffusion_builder").rglob("*.py"):
        for precision, decibels in re.findall(r"^    Precision\.(\w+): (\d+\.0),$", path.read_text(), re.MULTILINE):
            limits.setdefault(precision.lower(), set()).add(float(decibels))
    return limits


def test_parity_limits_are_the_builders() -> None:
    assert parity_limits() == {"float32": {35.0}, "float16": {30.0}, "bfloat16": {30.0}}


@pytest.mark.parametrize("name", _PAGES_WITH_PARITY)
def test_a_page_with_the_parity_limit_of_float32_has_that_of_half_precision(name: str) -> None:
    [float32] = parity_limits()["float32"]
    [float16] = parity_limits()["float16"]
    for limit in (float32, float16):
        assert f"{limit:g} dB" in text_of(name)


def test_the_readme_promises_no_other_parity() -> None:
    decibels = {float(number) for number in re.findall(r"(\d+(?:\.\d+)?) dB", text_of("README.md"))}
    assert decibels == set().union(*parity_limits().values())


@pytest.mark.parametrize("name", _PAGES_WITH_GO)
def test_the_version_of_go_is_the_one_that_the_devcluster_needs(name: str) -> None:
    modules = (ROOT / "tools" / "devcluster" / "go").glob("*/go.mod")
    needed = {
        version for module in modules for version in re.findall(r"^go (\d+\.\d+)", module.read_text(), re.MULTILINE)
    }
    assert set(re.findall(r"Go (\d+\.\d+)", text_of(name))) == needed


def test_unit_tests_take_as_long_as_the_makefile_says() -> None:
    [seconds] = re.findall(r"^unit: .*\(about (\d+) s of processor time", text_of("Makefile"), re.MULTILINE)
    assert re.findall(r"make unit .*about (\d+) s of processor time", text_of("CONTRIBUTING.md")) == [seconds]


@pytest.mark.parametrize("name", ["docs/builder.md", "docs/store.md"])
def test_staging_folders_expire_as_documented(name: str) -> None:
    minutes = {int(number) for number in re.findall(r"(\d+) minutes (?:old|after their last sign)", text_of(name))}
    assert minutes == {STAGING_GRACE_SECONDS / 60}


@pytest.mark.parametrize("name", ["README.md", "docs/index.md"])
def test_the_number_of_schedulers_is_that_of_the_api(name: str) -> None:
    [count] = re.findall(r"\[(\w+) schedulers\]", text_of(name))
    assert _COUNTS[count] == len(SchedulerType)


def test_the_limit_of_steps_is_that_of_the_table() -> None:
    assert re.findall(r"limit of (\d+) steps", text_of("docs/faq.md")) == [str(MAX_STEPS)]


def test_the_readme_shows_how_to_request_an_image_with_curl() -> None:
    [task, steps] = re.findall(
        r"^\$ curl .*/v2/models/([a-z]+)_(\d+)_json/generate ", text_of("README.md"), re.MULTILINE
    )[0]
    [entry] = re.findall(r"\{task: (\w+), steps: \[([\d, ]+)\]\}", text_of("README.md"))
    assert task == entry[0]
    assert steps in entry[1].split(", ")

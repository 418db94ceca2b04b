"""The generator of custom resources, and the report of what faults have shown."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_contract.documents import read_pipeline
from diffusion_contract.resources import Resources, amount
from diffusion_contract.spec.jobs import merged_resources
from tests.support.chaos import report
from tests.support.chaos.fuzzing import contract_refusal
from tests.support.chaos.generator import CustomResourceGenerator
from tests.support.chaos.patterns import PatternSampler
from tests.support.chaos.plans import Plan, Row

if TYPE_CHECKING:
    from pathlib import Path

PATTERNS = (
    r"^(\*[.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    r"^[+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?[0-9]))?$",
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
    r"^https?://[^\s]+$",
    r"^[1-9][0-9]*(s|m|h)$",
)


def row(area: str, failures: tuple[str, ...] = ()) -> Row:
    return Row(area, "it holds", "0", "0 of 3", 3, 1, failures)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("longest", [0, 12, 63, 253])
def test_samples_match_their_pattern_and_its_length(pattern: str, longest: int) -> None:
    sampler = PatternSampler(random.Random(1))  # noqa: S311 - repeatable on purpose
    texts = [sampler.sample(pattern, longest) for _ in range(20)]
    assert all(re.fullmatch(pattern, text) for text in texts)
    assert not longest or max(map(len, texts)) <= longest
    assert len(set(texts)) > 5


def test_a_document_follows_from_seed_and_number_alone() -> None:
    assert CustomResourceGenerator(1, 7).document() == CustomResourceGenerator(1, 7).document()
    assert CustomResourceGenerator(1, 7).document() != CustomResourceGenerator(2, 7).document()


def test_documents_are_valid_and_invalid_and_reach_most_fields() -> None:
    documents = [CustomResourceGenerator(1, number).document() for number in range(120)]
    refused = [bool(contract_refusal(document)) for document in documents]
    assert 30 < sum(refused) < 90
    assert len(set().union(*(document["spec"] for document in documents))) >= 12
    read_pipeline(CustomResourceGenerator(1, 0).valid())


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [("500m", 1), ("1Gi", "1025Mi"), ("1000M", "1Gi"), ("1e3", "1001"), (".5", "+1"), ("1n", "1u"), ("4095Ki", "4Mi")],
)
def test_quantities_are_ordered_by_what_they_amount_to(smaller: str | int, larger: str | int) -> None:
    assert amount(smaller) < amount(larger)


def test_amounts_are_rounded_and_capped_as_kubernetes_does() -> None:
    assert amount("0.0000000001") == amount("1n")
    assert amount("9999999E") == amount("99999999E")


def test_rows_of_another_area_stay_and_those_of_the_same_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "chaos.json"
    report.write_rows([row("a"), row("b")], path)
    report.write_rows([row("b", ("b/1/2: broken",))], path)
    assert report.read_rows(path) == [row("a"), row("b", ("b/1/2: broken",))]


def test_the_page_shows_failures_and_how_to_run_them_again() -> None:
    text = report.page(
        f"# Title\n{report.BEGIN}\noutdated\n{report.END}\nend\n", [row("a"), row("b", ("b/1/2: broken",))]
    )
    assert "outdated" not in text
    assert "| it holds | 0 | **1 failed**; 0 of 3 | 3 | `python -m tests.support.chaos b --seed 1` |" in text
    assert text.endswith("end\n")
    with pytest.raises(ValueError, match="add them"):
        report.page("# Title\n", [])


def test_a_plan_is_named_by_what_it_follows_from() -> None:
    assert Plan("crashes", 12, 3, (("when", "before"),)).id == "crashes/3/12"


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"requests": {"memory": "4Gi"}}, ({"cpu": "100m", "memory": "4Gi"}, {"memory": "4Gi"})),
        ({"limits": {"memory": "64Mi"}}, ({"cpu": "100m", "memory": "64Mi"}, {"memory": "64Mi"})),
        ({"requests": {"cpu": 2}}, ({"cpu": 2, "memory": "128Mi"}, {"memory": "1Gi"})),
    ],
)
def test_a_default_gives_way_to_an_amount_that_contradicts_it(
    named: dict[str, Any], expected: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    defaults = Resources(requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "1Gi"})
    merged = merged_resources(defaults, Resources(**named))
    assert (merged.requests, merged.limits) == expected

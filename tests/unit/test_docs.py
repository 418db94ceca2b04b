"""What the documentation promises to cover, it covers; what it points at exists."""

from __future__ import annotations

import re
import shlex
from functools import cache
from typing import TYPE_CHECKING

from diffusion_builder import errors
from diffusion_operator import conditions
from tests.support.documents import documents, typed_lines
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DOCS = ROOT / "docs"
_FENCE = re.compile(r"^ *```.*?^ *```$", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")


def documented_reasons() -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", (DOCS / "troubleshooting.md").read_text(), flags=re.MULTILINE)


def test_every_reason_has_one_entry_in_troubleshooting() -> None:
    reasons = {*conditions.Reason, *errors.Reason}
    assert sorted(documented_reasons()) == sorted(str(reason) for reason in reasons)


def alerts() -> set[str]:
    """Names of the chart's alerts, wherever the chart keeps them."""
    texts = [path.read_text() for path in (ROOT / "charts").rglob("*") if path.suffix in {".yaml", ".tpl", ".yml"}]
    return {name for text in texts for name in re.findall(r"^\s*(?:- )?alert: \"?(\w+)", text, flags=re.MULTILINE)}


def test_every_alert_has_one_runbook() -> None:
    page = DOCS / "alerts.md"
    text = page.read_text() if page.exists() else ""
    assert sorted(re.findall(r"^### `?(\w+)`?$", text, flags=re.MULTILINE)) == sorted(alerts())


def test_from_zero_to_an_image_it_takes_at_most_five_commands() -> None:
    text = (DOCS / "quickstart.md").read_text()
    way = text.partition("## From zero to an image")[2].partition("\n## ")[0]
    assert 0 < len(re.findall(r"^\$ ", way, flags=re.MULTILINE)) <= 5
    assert " && " not in way


def test_the_readme_has_the_five_commands_of_the_demo_checkpoint_which_an_integration_runs() -> None:
    """tests/integrations/test_quickstart.py; they differ in the checkpoint, and the demo's have further settings."""
    demo = {
        "examples/stable-diffusion-1-5.yaml": "examples/pipeline.yaml",
        "stable-diffusion": "shapes",
        "--timeout=3h": "--timeout=30m",
        "a lighthouse at dusk": "a red star on a blue background",
    }
    commands = typed_lines(ROOT / "README.md", "On your own cluster")
    assert len(commands) == 5
    tested = [shlex.split(line) for line in typed_lines(DOCS / "quickstart.md", "With the demo checkpoint")]
    text = "\n".join(commands)
    for name, replacement in demo.items():
        text = text.replace(name, replacement)
    for command in text.splitlines():
        assert [words for words in tested if set(shlex.split(command)) <= set(words)], command


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def prose(document: Path) -> str:
    """The text without fenced blocks."""
    return _FENCE.sub("", document.read_text())


@cache
def anchors(document: Path) -> frozenset[str]:
    """What a link may name behind `#`: headings as GitHub and MkDocs write them, and explicit anchors."""
    text = prose(document)
    headings = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    plain = [re.sub(r"\]\([^)]*\)", "", heading) for heading in headings]
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain]
    return frozenset([*slugs, *re.findall(r"<a id=\"([^\"]+)\"", text)])


def link_problem(document: Path, link: str) -> str:
    """Why a link of a document leads nowhere; empty when it leads somewhere."""
    name, _, anchor = link.partition("#")
    target = (document.parent / name) if name else document
    if not target.exists():
        return "does not exist"
    if anchor and target.suffix == ".md" and anchor not in anchors(target.resolve()):
        return "has no such heading"
    return ""


def test_links_between_documents_lead_somewhere() -> None:
    links = [(path, link) for path in documents() for link in _LINK.findall(prose(path)) if "://" not in link]
    assert len(links) > 50
    wrong = [(str(path.relative_to(ROOT)), link, link_problem(path, link)) for path, link in links]
    assert [item for item in wrong if item[2]] == []


def test_a_link_that_leads_nowhere_is_found() -> None:
    page = DOCS / "quickstart.md"
    assert link_problem(page, "nothing.md")
    assert link_problem(page, "troubleshooting.md#no-such-heading")
    assert link_problem(page, "#no-such-heading")
    assert not link_problem(page, "troubleshooting.md#normal")


def headless_tables(text: str) -> list[str]:
    """First rows of tables that no renderer takes for tables: no header, or text right above."""
    lines = ["", *text.splitlines(), ""]
    starts = [at for at in range(1, len(lines)) if lines[at].startswith("|") and not lines[at - 1].startswith("|")]
    ruled = re.compile(r"\|[-| :]+")
    return [lines[at] for at in starts if lines[at - 1].strip() or not ruled.fullmatch(lines[at + 1])]


def test_every_table_is_rendered_as_one() -> None:
    assert [(str(path), row) for path in documents() for row in headless_tables(prose(path))] == []
    assert headless_tables("| a |\n|---|\n| 1 |\n\n| 2 |\n") == ["| 2 |"]
    assert headless_tables("text\n| a |\n|---|\n") == ["| a |"]


@cache
def fields() -> set[str]:
    """All fields of the API, as its generated reference names them, and what leads to them."""
    names = re.findall(r"^\| `([\w.\[\]*]+)` \|", (DOCS / "api.md").read_text(), flags=re.MULTILINE)
    parts = [name.replace("[]", "").split(".") for name in names]
    return {".".join(one[:length]) for one in parts for length in range(1, len(one) + 1)}


@cache
def maps() -> tuple[str, ...]:
    """Fields below which names are the user's."""
    paths = re.findall(r"^\| `([\w.\[\]*]+)` \| map \|", (DOCS / "api.md").read_text(), flags=re.MULTILINE)
    plain = [name.replace("[]", "") for name in paths]
    return tuple(f"{name}." for name in plain if f"{name}.*" not in fields())


def field_exists(name: str) -> bool:
    plain = re.sub(r"\[[^\]]*\]", "", name)
    parts = plain.split(".")
    starred = {".".join([*parts[:at], "*", *parts[at + 1 :]]) for at in range(2, len(parts))}
    return plain.startswith(maps()) or not fields().isdisjoint({plain, *starred})


def test_every_field_that_the_text_names_exists() -> None:
    mentions = {
        (str(path.relative_to(ROOT)), name)
        for path in documents()
        if path.parent.name != "adr"
        for name in re.findall(r"`((?:spec|status)\.[\w.\[\]]+)`", prose(path))
    }
    assert len(mentions) > 20
    # Fields of Kubernetes' own objects.
    foreign_fields = {"spec.replicas", "status.capacity", "spec.containers"}
    assert sorted(item for item in mentions if item[1] not in foreign_fields and not field_exists(item[1])) == []


def test_a_field_that_does_not_exist_is_found() -> None:
    assert field_exists("spec.engines.timeout")
    assert field_exists("status.components.denoiser.digest")
    assert field_exists("spec.engines.resources.limits.memory")
    assert not field_exists("spec.engines.timeuot")
    assert not field_exists("status.components.denoiser.digset")


def test_the_quick_start_needs_five_commands_from_zero_to_an_image() -> None:
    text = (DOCS / "quickstart.md").read_text()
    section = text.partition("## From zero to an image\n")[2].partition("\n## ")[0]
    commands = re.findall(r"^\$ (.+)$", section, flags=re.MULTILINE)
    assert len(commands) <= 5
    assert [word in command for word, command in zip(("images", "helm", "apply"), commands, strict=False)] == [True] * 3
    assert "--out" in commands[-1]

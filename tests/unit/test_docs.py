"""What the documentation promises to cover, it covers."""

import re
from pathlib import Path

from diffusion_builder import errors
from diffusion_operator import conditions

ROOT = Path(__file__).parents[2]


def documented_reasons() -> list[str]:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    return re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)


def test_every_reason_has_one_entry_in_troubleshooting() -> None:
    reasons = {*conditions.Reason, *errors.Reason}
    assert sorted(documented_reasons()) == sorted(str(reason) for reason in reasons)


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{document.relative_to(ROOT)} -> {target}"
        for document in [
            *ROOT.glob("*.md"),
            *(ROOT / "docs").rglob("*.md"),
            *(ROOT / "examples").rglob("*.md"),
        ]
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text())
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert broken == []

"""The page about the gateway names every field, option and metric."""

from __future__ import annotations

import re

import click

from diffusion_gateway.cli import cli
from diffusion_gateway.fields import ImageFields
from diffusion_gateway.metrics import Metrics
from diffusion_gateway.settings import FORWARDED_HEADERS
from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "gateway.md").read_text()
# What `run --help` says is enough.
UNDOCUMENTED = {"--port", "--log-format", "--help"}


def test_every_field_and_header_is_documented() -> None:
    assert [name for name in (*ImageFields.model_fields, *FORWARDED_HEADERS) if f"`{name}`" not in TEXT] == []


def test_every_option_is_documented() -> None:
    options = {name for item in cli.commands["run"].params if isinstance(item, click.Option) for name in item.opts}
    assert [name for name in sorted(options - UNDOCUMENTED) if name not in TEXT] == []


def test_exactly_the_metrics_are_documented() -> None:
    families = [family for family in Metrics().registry.collect() if not family.name.endswith("_created")]
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert set(re.findall(r"`(diffusion_gateway_\w+)`", TEXT)) == names

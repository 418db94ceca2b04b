"""Render config.pbtxt files; Triton completes nothing by itself, so each one is complete."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

if TYPE_CHECKING:
    from pathlib import Path

    from diffusion_builder.graph import Ensemble, Model
    from diffusion_builder.spec import Batching


class Renderer:
    """Templates with what all models of a repository share.

    Args:
        templates: the folder of `*.pbtxt.j2`.
        max_batch: largest batch of every model.
        batching: queue settings of the engines.
    """

    def __init__(self, templates: Path, max_batch: int, batching: Batching) -> None:
        self._environment = Environment(  # noqa: S701 - protobuf text, not HTML; strings are quoted by `quote`
            loader=FileSystemLoader(templates),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        # JSON strings are valid protobuf text strings.
        self._environment.filters["quote"] = json.dumps
        self._max_batch = max_batch
        self._batching = batching

    def engine(self, model: Model) -> str:
        """A model with an engine: requests wait for company as the batching settings say."""
        return self._render("model.pbtxt.j2", model=model, batching=self._batching)

    def python(self, model: Model) -> str:
        """A model without an engine: whatever is queued is handled together, nothing waits."""
        return self._render("model.pbtxt.j2", model=model, batching=None)

    def ensemble(self, ensemble: Ensemble) -> str:
        """An ensemble with all its steps."""
        return self._render("ensemble.pbtxt.j2", ensemble=ensemble)

    def _render(self, template: str, **values: object) -> str:
        return self._environment.get_template(template).render(max_batch=self._max_batch, **values)

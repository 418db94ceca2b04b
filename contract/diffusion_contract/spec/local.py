"""Sources that exist only on the machine of a build: `diffusion-builder build --spec` reads them, the CRD has none.

A spec that is read with `{EXTENSION: LocalSource}` as pydantic's context may have them wherever it has a source.
"""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from diffusion_contract.base import Rule
from diffusion_contract.limits import DIGEST_PATTERN
from diffusion_contract.spec.model import EXTENSION, Source

__all__ = ["EXTENSION", "LocalSource"]


class LocalSource(Source):
    """Where something comes from: exactly one of the fields."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "",
            "source needs exactly one of huggingFace, persistentVolumeClaim, archive, path and digest",
            lambda self: len(self.places()) == 1,
        ),
        Rule(
            "",
            "an artifact of the store was fetched already: subfolder and variant are for other sources",
            lambda self: self.digest is None or (self.subfolder is None and self.variant is None),
        ),
    )

    path: Path | None = Field(default=None, description="A folder of this machine.")
    digest: Annotated[str, Field(pattern=DIGEST_PATTERN)] | None = Field(
        default=None, description="A source that is in the store already."
    )

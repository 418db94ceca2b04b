"""Garbage collection of the store: what is asked for, and what came of it."""

from typing import Annotated, Literal

from pydantic import Field

from diffusion_contract.base import ApiModel, Duration

DigestPrefix = Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]{8,64}$")]


class GarbageCollection(ApiModel):
    """When artifacts go that no pipeline in the namespace needs any more.

    Of several pipelines that share a claim, the first by name of those with this field collects, for all of them.
    """

    interval: Duration = Field(default="24h", description="How often the store is cleaned, such as 12h.")
    grace: Duration = Field(
        default="24h",
        description="What was made or asked for within this time stays, such as 72h; longer than any Job takes.",
    )
    dry_run: bool = Field(default=False, description="Only tell in the status what would be freed.")


class GarbageCollectionStatus(ApiModel):
    """The last garbage collection."""

    state: Literal["Running", "Succeeded", "Failed"] = Field(description="How far it is.")
    job: Annotated[str, Field(max_length=63)] = Field(description="Job that collects.")
    finished_at: str | None = Field(
        default=None, description="When it finished.", json_schema_extra={"format": "date-time"}
    )
    dry_run: bool = Field(default=False, description="True when nothing was deleted.")
    freed_bytes: int | None = Field(default=None, description="What was freed, or would be in a dry run, bytes.")
    deleted: int | None = Field(default=None, description="Artifacts that were deleted, or would be.")
    retained: int | None = Field(default=None, description="Artifacts that stay.")
    message: Annotated[str, Field(max_length=1024)] | None = Field(default=None, description="Why it failed.")

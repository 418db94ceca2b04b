"""Garbage collection of the store: options and status."""

from typing import Annotated, Literal

from pydantic import Field

from diffusion_contract.base import ApiModel, Duration

DigestPrefix = Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]{8,64}$")]


class GarbageCollection(ApiModel):
    """Deletes artifacts that no pipeline in the namespace needs.

    Of several pipelines that share a claim, the first by name of those with this field runs it, for all of them.
    """

    interval: Duration = Field(default="24h", description="Interval of garbage collections, such as 12h.")
    grace: Duration = Field(
        default="24h",
        description="Grace period, such as 72h: artifacts created or used within it are retained. Longer than any Job.",
    )
    dry_run: bool = Field(default=False, description="Report what would be deleted without deleting it.")


class GarbageCollectionStatus(ApiModel):
    """The last garbage collection."""

    state: Literal["Running", "Succeeded", "Failed"] = Field(description="State of the Job.")
    job: Annotated[str, Field(max_length=63)] = Field(description="Job of this garbage collection.")
    finished_at: str | None = Field(
        default=None, description="When the Job finished.", json_schema_extra={"format": "date-time"}
    )
    dry_run: bool = Field(default=False, description="True when nothing was deleted.")
    freed_bytes: int | None = Field(default=None, description="Bytes that were deleted; in a dry run, that would be.")
    deleted: int | None = Field(default=None, description="Artifacts that were deleted; in a dry run, that would be.")
    retained: int | None = Field(default=None, description="Artifacts that were not deleted.")
    message: Annotated[str, Field(max_length=1024)] | None = Field(default=None, description="Details of a failure.")

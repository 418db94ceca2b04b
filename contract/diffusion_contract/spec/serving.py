"""The Triton server."""

from typing import Annotated

from pydantic import Field

from diffusion_contract.base import BY_NAME, SET, ApiModel, ShortDuration

BatchSize = Annotated[int, Field(ge=1, le=128)]


class Batching(ApiModel):
    """Dynamic batching, as in Triton."""

    max_queue_delay: ShortDuration = Field(
        default="0us", description="Maximum time a request waits for a batch, such as 500us or 5ms."
    )
    preferred_batch_sizes: Annotated[list[BatchSize], Field(max_length=16), SET] | None = Field(
        default=None, description="Batch sizes that are sent to the engine without further delay."
    )
    take_turns: bool = Field(
        default=True,
        description="Whether denoiser and scheduler step take turns, so that few requests are joined; false where "
        "there always are at least twice as many as a batch holds.",
    )
    priorities: bool = Field(
        default=False,
        description="Whether requests of priority 1, which is the default, are served before those of "
        "priority 2; batches of few requests are smaller then.",
    )


class EnvVar(ApiModel):
    """An environment variable of the server."""

    name: Annotated[str, Field(max_length=253, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")] = Field(
        description="Name of the variable."
    )
    value: Annotated[str, Field(max_length=4096)] = Field(description="Value of the variable.")


class Serving(ApiModel):
    """The Triton server."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        default=None, description="Image of the server; the operator's own when not given."
    )
    batching: Batching = Field(default=Batching(), description="How the server joins requests.")
    env: Annotated[list[EnvVar], Field(max_length=64), BY_NAME] | None = Field(
        default=None, description="More environment variables."
    )

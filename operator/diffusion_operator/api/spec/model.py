"""What is served: checkpoints and where they come from."""

from typing import Annotated

from pydantic import ConfigDict, Field

from diffusion_operator.api.base import ApiModel, ObjectName, rule, rules


class SecretKey(ApiModel):
    """A key of a Secret in the pipeline's namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: Annotated[str, Field(max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] = Field(
        default="token", description="Key inside the Secret."
    )


class HuggingFaceSource(ApiModel):
    """A repository on a hub, pinned to one commit."""

    repo: Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")] = Field(
        description="organisation/name of the repository."
    )
    revision: Annotated[str, Field(max_length=64)] = Field(
        description="Commit of the repository: 40 lower-case hex digits; a branch or tag can move.",
        json_schema_extra=rules(
            rule(
                "self.matches('^[0-9a-f]{40}$')",
                "revision must be a full commit id (40 lower-case hex digits), not a branch or tag: "
                "copy it from the repository's commit page",
            )
        ),
    )
    token_secret_ref: SecretKey | None = Field(
        default=None, description="Access token for private repositories; only the download step sees it."
    )


class ClaimSource(ApiModel):
    """A checkpoint in diffusers layout that already lies on a PersistentVolumeClaim."""

    claim_name: ObjectName = Field(description="Claim in the pipeline's namespace; it is mounted read-only.")
    path: Annotated[str, Field(max_length=512)] = Field(
        default=".",
        description="Folder of the checkpoint inside the claim.",
        json_schema_extra=rules(
            rule(
                "!self.startsWith('/') && !self.split('/').exists(p, p == '..')",
                "path must be relative to the claim's root and must not contain '..'",
            )
        ),
    )


class Source(ApiModel):
    """Where the checkpoint comes from: exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "[has(self.huggingFace), has(self.persistentVolumeClaim)].exists_one(x, x)",
                "source needs exactly one of huggingFace and persistentVolumeClaim",
            )
        )
    )

    hugging_face: HuggingFaceSource | None = Field(default=None, description="A repository on a hub.")
    persistent_volume_claim: ClaimSource | None = Field(default=None, description="A folder on a claim.")


class Model(ApiModel):
    """The checkpoint that is served."""

    source: Source = Field(description="Where the checkpoint comes from.")

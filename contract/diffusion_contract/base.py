"""What all API models have in common, and the field types with their validation rules."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

JsonObject = dict[str, Any]

RULES = "x-kubernetes-validations"


def rule(expression: str, message: str, **more: str) -> JsonObject:
    """One CEL rule; `more` may hold `fieldPath`, `messageExpression` or `reason`."""
    return {"rule": expression, "message": message, **more}


def rules(*items: JsonObject) -> JsonObject:
    """Schema keywords that hold these CEL rules."""
    return {RULES: list(items)}


class ApiModel(BaseModel):
    """Immutable, camelCase outside; an unknown field is an error, never silently ignored."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


Quantity = Annotated[
    str | int,
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": r"^[+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?[0-9]+))?$",
        }
    ),
]
"""A Kubernetes quantity, such as 500m or 8Gi."""

ObjectName = Annotated[
    str, Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
]
TargetName = Annotated[str, Field(max_length=15, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
LabelMap = Annotated[dict[str, str], Field(max_length=32)]
LabelValue = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")]
ExtraLabels = Annotated[
    dict[str, str],
    Field(
        max_length=16,
        json_schema_extra=rules(
            rule(
                "self.all(k, !k.startsWith('diffusion-operator.io/') && !k.startsWith('needed-by.') && "
                "!k.startsWith('app.kubernetes.io/'))",
                "labels with the prefixes diffusion-operator.io/ and app.kubernetes.io/ belong to the operator: "
                "use keys of your own",
            )
        ),
    ),
]
Duration = Annotated[str, Field(max_length=12, pattern=r"^[1-9][0-9]*(s|m|h)$")]
ShortDuration = Annotated[str, Field(max_length=12, pattern=r"^[0-9]+(us|ms|s)$")]

SECONDS = {"s": 1, "m": 60, "h": 3600}
MICROSECONDS = {"us": 1, "ms": 1000, "s": 1_000_000}


def seconds(duration: str) -> int:
    """Seconds of a duration such as `90s`, `30m` or `2h`."""
    return int(duration[:-1]) * SECONDS[duration[-1]]


def microseconds(duration: str) -> int:
    """Microseconds of a duration such as `500us`, `5ms` or `1s`."""
    unit = duration.lstrip("0123456789")
    return int(duration.removesuffix(unit)) * MICROSECONDS[unit]


class Resources(ApiModel):
    """What the container asks for, as in a pod."""

    requests: dict[str, Quantity] | None = Field(
        default=None, description="Least amounts, by resource name.", max_length=8
    )
    limits: dict[str, Quantity] | None = Field(
        default=None, description="Most amounts, by resource name.", max_length=8
    )


class Toleration(ApiModel):
    """A taint that the pods tolerate, as in a pod."""

    key: str | None = Field(default=None, max_length=317, description="Key of the taint; empty matches all.")
    operator: Literal["Exists", "Equal"] | None = Field(default=None, description="How key and value are compared.")
    value: str | None = Field(default=None, max_length=63, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint; empty matches all."
    )
    toleration_seconds: int | None = Field(
        default=None, description="How long a NoExecute taint is tolerated, in seconds."
    )

"""What all API models have in common: rules that the API server and Python both check, and the field types."""

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel, to_snake
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from diffusion_contract.durations import DURATION_PATTERN, SHORT_DURATION_PATTERN, TIMEOUT_PATTERN
from diffusion_contract.skus import LABEL_VALUE, LABEL_VALUE_PATTERN, SUBDOMAIN

JsonObject = dict[str, Any]

RULES = "x-kubernetes-validations"
RULE_ERROR = "rule"
Value = TypeVar("Value")


@dataclass(frozen=True)
class Rule:
    """One rule in both of its forms; as metadata of a field's type, or among the `rules` of a model.

    Attributes:
        cel: what the API server evaluates.
        message: what was wrong and what to do.
        holds: the same in Python, of the validated value.
        path: field that the error is shown at, below the one with the rule, such as `.precision`.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    path: str = ""

    def schema(self) -> JsonObject:
        """The entry of `x-kubernetes-validations`."""
        return {"rule": self.cel, "message": self.message, **({"fieldPath": self.path} if self.path else {})}

    def check(self, value: Value) -> Value:
        """Return the value.

        Raises:
            PydanticCustomError: the rule does not hold.
        """
        if not self.holds(value):
            raise PydanticCustomError(RULE_ERROR, "{message}", {"message": self.message, "path": self.path})
        return value

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonObject:
        schema = handler(core)
        return {**schema, RULES: [*schema.get(RULES, []), self.schema()]}


def transition(cel: str, message: str) -> Rule:
    """A rule about a change: only the API server knows the earlier value."""
    return Rule(cel, message, lambda _: True)


@dataclass(frozen=True)
class ListType:
    """How server-side apply merges a list; entries of a set, and keys of a map, are unique.

    Attributes:
        kind: value of `x-kubernetes-list-type`.
        key: field that identifies an entry of a map.
    """

    kind: Literal["atomic", "set", "map"]
    key: str = ""

    def check(self, entries: list[Any]) -> list[Any]:
        """Return the entries.

        Raises:
            PydanticCustomError: two of them are the same.
        """
        names: list[Hashable] = [getattr(entry, to_snake(self.key)) if self.key else entry for entry in entries]
        if self.kind != "atomic" and len(set(names)) != len(names):
            twice = sorted({str(name) for name in names if names.count(name) > 1})
            raise PydanticCustomError("duplicate", "{names} more than once", {"names": ", ".join(twice)})
        return entries

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonObject:
        keys = {"x-kubernetes-list-map-keys": [self.key]} if self.key else {}
        return {**handler(core), "x-kubernetes-list-type": self.kind, **keys}


ATOMIC, SET, BY_NAME = ListType("atomic"), ListType("set"), ListType("map", "name")


class ApiModel(BaseModel):
    """Immutable, camelCase outside; an unknown field is an error, never silently ignored."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for rule in self.rules:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonObject:
        schema = handler.resolve_ref_schema(handler(core))
        if cls.rules:
            schema[RULES] = [rule.schema() for rule in cls.rules]
        return schema


LABEL_KEY = rf"({SUBDOMAIN}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?"


def keys_rule(pattern: str, message: str) -> Rule:
    """A rule about the keys of a map, for which a schema has no pattern."""
    whole = re.compile(pattern)
    return Rule(
        f"self.all(k, k.matches('^({pattern})$'))",
        message,
        lambda entries: all(whole.fullmatch(key) for key in entries),
    )


_LABEL_KEYS = keys_rule(
    LABEL_KEY,
    "the key of a label is a name of at most 63 letters, digits, '-', '_' and '.', after a DNS domain and '/' "
    "where it has one: use such keys",
)
_ANNOTATION_KEYS = keys_rule(
    LABEL_KEY,
    "the key of an annotation is a name of at most 63 letters, digits, '-', '_' and '.', after a DNS domain and '/' "
    "where it has one: use such keys",
)
_OPERATORS_LABELS = ("diffusion-operator.io/", "needed-by.", "app.kubernetes.io/")
ObjectName = Annotated[str, Field(max_length=253, pattern=rf"^{SUBDOMAIN}$")]
Hostname = Annotated[str, Field(min_length=1, max_length=253, pattern=rf"^(\*[.])?{SUBDOMAIN}$")]
ImageName = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[!-~]+$")]
TargetName = Annotated[str, Field(max_length=15, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
_Value = Annotated[str, Field(max_length=63, pattern=rf"^({LABEL_VALUE})?$")]
LabelKey = Annotated[str, Field(min_length=1, max_length=317, pattern=rf"^{LABEL_KEY}$")]
LabelMap = Annotated[dict[str, _Value], Field(max_length=32), _LABEL_KEYS]
LabelValue = Annotated[str, Field(min_length=1, max_length=63, pattern=LABEL_VALUE_PATTERN)]
ExtraLabels = Annotated[
    dict[str, _Value],
    Field(max_length=16),
    _LABEL_KEYS,
    Rule(
        "self.all(k, !k.startsWith('diffusion-operator.io/') && !k.startsWith('needed-by.') && "
        "!k.startsWith('app.kubernetes.io/'))",
        "labels with the prefixes diffusion-operator.io/ and app.kubernetes.io/ belong to the operator: "
        "use keys of your own",
        lambda labels: not any(key.startswith(_OPERATORS_LABELS) for key in labels),
    ),
]
Annotations = Annotated[
    dict[str, Annotated[str, Field(max_length=4096)]],
    Field(max_length=32),
    _ANNOTATION_KEYS,
    Rule(
        "self.all(k, !k.startsWith('diffusion-operator.io/'))",
        "annotations with the prefix diffusion-operator.io/ belong to the operator: use keys of your own",
        lambda annotations: not any(key.startswith("diffusion-operator.io/") for key in annotations),
    ),
]
OpenObject = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]
"""A part of a pod that only Kubernetes checks."""
Duration = Annotated[str, Field(max_length=12, pattern=DURATION_PATTERN)]
Timeout = Annotated[str, Field(max_length=12, pattern=TIMEOUT_PATTERN)]
ShortDuration = Annotated[str, Field(max_length=12, pattern=SHORT_DURATION_PATTERN)]


class Toleration(ApiModel):
    """A taint that the pods tolerate, as in a pod."""

    rules = (
        Rule(
            "(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
            "without a key every taint is tolerated, which needs operator Exists: add one of them",
            lambda self: bool(self.key) or self.operator == "Exists",
        ),
        Rule(
            "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
            "operator Exists compares no value: leave value out, or use Equal",
            lambda self: self.operator != "Exists" or not self.value,
            ".value",
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "only the effect NoExecute is tolerated for a time: use it, or leave tolerationSeconds out",
            lambda self: self.toleration_seconds is None or self.effect == "NoExecute",
            ".tolerationSeconds",
        ),
    )

    key: Annotated[str, Field(max_length=317, pattern=rf"^({LABEL_KEY})?$")] | None = Field(
        default=None, description="Key of the taint; empty matches all."
    )
    operator: Literal["Exists", "Equal"] | None = Field(default=None, description="How key and value are compared.")
    value: _Value | None = Field(default=None, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint; empty matches all."
    )
    toleration_seconds: int | None = Field(
        default=None, description="How long a NoExecute taint is tolerated, in seconds."
    )


Tolerations = Annotated[list[Toleration], Field(max_length=16)]

"""Custom resources drawn from the CRD's schema: valid ones, ones at its boundaries, and ones just beyond."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from diffusion_contract.documents import InvalidSpecError, read_pipeline
from diffusion_contract.limits import PIPELINE_PATTERN
from diffusion_operator.api import API_VERSION, KIND
from diffusion_operator.api.crd import definition
from tests.support.chaos.patterns import PatternSampler
from tests.support.custom_resources import ACCEPTED
from tests.support.resource_parts import pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

JsonObject = dict[str, Any]
INT_OR_STRING = "x-kubernetes-int-or-string"
_TEXTS = ("a", "A b", "é", "日本", "'\"", "$(HOME)", "{{x}}", "a\n", "\t", "-", "0", "true", "a/b", "*", " ")
_QUANTITIES = (0, 1, 64, "1", "500m", "1.5Gi", "2Gi", "100M", "1e3", ".5", "+1")
_ODD_QUANTITIES = (-1, 1.5, "", "1Gi\n", "Gi", "-1", "1 Gi", "1GiB", "0x1", "1.5.5", "500m ", True, "1E", "1.", "1k")
_ODD_INTEGERS: tuple[Any, ...] = (0, -1, 1.0, 1.5, "1", True, 2**31, 2**63, -(2**63) - 1, [], {})
_ODD_NUMBERS: tuple[Any, ...] = (-0.001, 1e308, "0.5", True, [], {})
_ODD_BOOLEANS: tuple[Any, ...] = ("true", 0, 1, [], {})
_LABEL_KEYS = ("team", "example.com/team", "a.B_c-1", "x" * 63, "nvidia.com/gpu.product")
_ODD_KEYS = ("", "-a", "a-", "a/b/c", "x" * 64, "Example.com/a", "diffusion-operator.io/x", "a b", "é", "/a", "a/")
_RESOURCES = ("cpu", "memory", "ephemeral-storage", "nvidia.com/gpu", "hugepages-2Mi")
_ODD_RESOURCES = (
    "gpu",
    "example.com/fpga",
    "x" * 70 + ".io/y",
    "a.b/" + "c" * 64,
    "CPU",
    "requests.cpu",
    "nvidia.com/",
    "kubernetes.io/x",
    "hugepages-2MB",
    "pods",
)
_OPTIONAL_SHARE = 0.12
_ODD_NAME_SHARE = 0.03


@dataclass(frozen=True)
class Site:
    """A place in a document: a key of an object, or an index of a list, with the schema of what stands there."""

    container: Any
    key: Any
    schema: JsonObject


@dataclass(frozen=True)
class CustomResourceGenerator:
    """Documents of one seed and number.

    Attributes:
        seed: of the whole run.
        number: of the document in it; each can be made alone.
    """

    seed: int
    number: int

    @cached_property
    def _random(self) -> random.Random:
        return random.Random(f"{self.seed}/{self.number}")  # noqa: S311 - repeatable on purpose

    def document(self) -> JsonObject:
        """A document: a third are valid, a third have one change at or beyond a boundary, a third are drawn freely."""
        match self.number % 3:
            case 0:
                return self.valid()
            case 1:
                return self.changed(self.valid())
            case _:
                return self.changed(self._named({"spec": self._value(spec_schema())}))

    def valid(self) -> JsonObject:
        """A document that the contract accepts, larger than those of the table where that works."""
        document = self._named(pipeline(**copy.deepcopy(self._random.choice(list(ACCEPTED.values())))))
        for _ in range(self._random.randint(1, 6)):
            candidate = self._grown(document)
            if _is_accepted(candidate):
                document = candidate
        return document

    def changed(self, document: JsonObject) -> JsonObject:
        """The document with one to three values replaced, added or removed."""
        changed = copy.deepcopy(document)
        for _ in range(self._random.choice([1, 1, 1, 2])):
            site = self._random.choice(list(_sites(changed["spec"], spec_schema())))
            self._change(site)
        return changed

    def _named(self, document: JsonObject) -> JsonObject:
        odd = ("a" * 38, "a" * 39, "1a", "a-", "a", "a.b", "A")
        is_odd = self._random.random() < _ODD_NAME_SHARE
        name = self._random.choice(odd) if is_odd else PatternSampler(self._random).sample(PIPELINE_PATTERN)
        head = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}}
        return {**head, "spec": document["spec"]}

    def _grown(self, document: JsonObject) -> JsonObject:
        """With one more optional field, or another valid value, somewhere."""
        grown = copy.deepcopy(document)
        site = self._random.choice(list(_sites(grown["spec"], spec_schema())))
        site.container[site.key] = self._value(site.schema)
        return grown

    def _change(self, site: Site) -> None:
        dice = self._random.random()
        if dice < 0.1 and isinstance(site.container, dict):
            site.container.pop(site.key, None)
        elif dice < 0.15 and isinstance(site.container, dict):
            site.container[self._random.choice(["unknown", "spec", "Name", f"{site.key}s"])] = 1
        elif dice < 0.2:
            site.container[site.key] = None
        elif dice < 0.5:
            site.container[site.key] = self._value(site.schema)
        else:
            site.container[site.key] = self._odd(site.schema)

    # Values that the schema alone permits.

    def _value(self, schema: JsonObject) -> Any:  # noqa: ANN401, PLR0911 - any JSON, a return for each type
        if INT_OR_STRING in schema:
            return self._random.choice(_QUANTITIES)
        if "enum" in schema:
            return self._random.choice(schema["enum"])
        match schema["type"]:
            case "object":
                return self._map(schema) if "additionalProperties" in schema else self._object(schema)
            case "array":
                return self._array(schema)
            case "integer" | "number":
                return self._number(schema)
            case "boolean":
                return self._random.random() < 0.5
            case _:
                return self._string(schema)

    def _object(self, schema: JsonObject) -> JsonObject:
        required = schema.get("required", [])
        properties = schema.get("properties", {})
        names = [name for name in properties if name in required or self._random.random() < _OPTIONAL_SHARE]
        if not names and properties:
            names = [self._random.choice(list(properties))]
        return {name: self._value(properties[name]) for name in names}

    def _map(self, schema: JsonObject) -> JsonObject:
        keys = _RESOURCES if INT_OR_STRING in schema["additionalProperties"] else _LABEL_KEYS
        count = self._random.randint(0, min(2, schema.get("maxProperties", 2)))
        return {key: self._value(schema["additionalProperties"]) for key in self._random.sample(keys, count)}

    def _array(self, schema: JsonObject) -> list[Any]:
        low, high = schema.get("minItems", 0), schema.get("maxItems", 4)
        count = self._random.choice([low, min(high, low + 1), min(high, low + 1), min(high, 3)])
        return [self._value(schema["items"]) for _ in range(count)]

    def _number(self, schema: JsonObject) -> float:
        low, high = schema.get("minimum", 0), schema.get("maximum", 2**31 - 1)
        if schema["type"] == "number":
            number: float = self._random.choice([low, high, self._random.uniform(low, high)])
            return number
        return int(self._random.choice([low, high, self._random.randint(low, min(high, low + 16)), 8 * (low // 8 + 1)]))

    def _string(self, schema: JsonObject) -> str:
        longest = schema.get("maxLength", 0) if self._random.random() < 0.2 else 0
        if "pattern" in schema:
            return PatternSampler(self._random).sample(schema["pattern"], longest)
        text = self._random.choice(_TEXTS)
        return (text * longest)[:longest] if longest else text

    # Values at the boundary of the schema, and one step beyond.

    def _odd(self, schema: JsonObject) -> Any:  # noqa: ANN401, PLR0911 - any JSON, a return for each type
        if INT_OR_STRING in schema:
            return self._random.choice(_ODD_QUANTITIES)
        if "enum" in schema:
            first = str(schema["enum"][0])
            return self._random.choice([first.upper(), f"{first} ", "", 1, first[:-1]])
        match schema["type"]:
            case "object":
                return self._odd_object(schema)
            case "array":
                return self._odd_array(schema)
            case "integer":
                bounds = [schema.get("minimum", 0) - 1, schema.get("maximum", 2**31) + 1]
                return self._random.choice([*bounds, float(schema.get("minimum", 1)), *_ODD_INTEGERS])
            case "number":
                bounds = [schema.get("minimum", 0) - 0.01, schema.get("maximum", 100) + 0.01]
                return self._random.choice([*bounds, *_ODD_NUMBERS])
            case "boolean":
                return self._random.choice(_ODD_BOOLEANS)
            case _:
                return self._odd_string(schema)

    def _odd_object(self, schema: JsonObject) -> Any:  # noqa: ANN401 - any JSON
        if "additionalProperties" not in schema:
            return self._random.choice([{}, [], "", {**self._object(schema), "unknown": {}}])
        is_amount = INT_OR_STRING in schema["additionalProperties"]
        key = self._random.choice(_ODD_RESOURCES if is_amount else _ODD_KEYS)
        keys = [f"example.com/{index}" for index in range(schema.get("maxProperties", 8) + self._random.randint(0, 1))]
        value = self._value(schema["additionalProperties"])
        return self._random.choice([{key: value}, dict.fromkeys(keys, value), {"team": 1}, {"team": None}])

    def _odd_array(self, schema: JsonObject) -> Any:  # noqa: ANN401 - any JSON
        entry = self._value(schema["items"])
        counts = [schema.get("minItems", 0) - 1, schema.get("maxItems", 4), schema.get("maxItems", 4) + 1]
        many = [self._value(schema["items"]) for _ in range(max(0, self._random.choice(counts)))]
        twice = [entry, copy.deepcopy(entry)]
        return self._random.choice([twice, many, [], [None], entry, [self._odd(schema["items"])]])

    def _odd_string(self, schema: JsonObject) -> Any:  # noqa: ANN401 - any JSON
        text = self._string(schema)
        beyond = text.ljust(schema.get("maxLength", 64) + 1, text[-1:] or "a")
        endings = [f"{text}\n", f" {text}", f"{text}é", text.upper(), f"{text}/..", f"{text}."]
        return self._random.choice([beyond, beyond[:-1], "", *endings, 1, ["a"], *_TEXTS])


@cache
def spec_schema() -> JsonObject:
    """The schema of `spec` in the CRD's only version."""
    properties: JsonObject = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    schema: JsonObject = properties["spec"]
    return schema


def _sites(value: Any, schema: JsonObject) -> Iterator[Site]:  # noqa: ANN401 - any JSON
    """Every place of the document that its schema describes, also of fields that it does not have."""
    if isinstance(value, dict):
        fields = schema.get("properties") or dict.fromkeys(value, schema.get("additionalProperties", {}))
        for name, below in fields.items():
            if below:
                yield Site(value, name, below)
            if name in value and below:
                yield from _sites(value[name], below)
    elif isinstance(value, list) and schema.get("items"):
        for index, entry in enumerate(value):
            yield Site(value, index, schema["items"])
            yield from _sites(entry, schema["items"])


def _is_accepted(document: JsonObject) -> bool:
    try:
        read_pipeline(document)
    except InvalidSpecError:
        return False
    return True

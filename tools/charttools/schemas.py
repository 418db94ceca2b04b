"""JSON schemas for kubeconform from what an API server says about itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Schema = dict[str, Any]
LOCATION = "{{ .Group }}_{{ .ResourceAPIVersion }}_{{ .ResourceKind }}.json"
_KINDS = "x-kubernetes-group-version-kind"
_REFERENCE = "#/definitions/"
# Kubernetes takes these as numbers, too, and says only `string`.
_NUMBERS = ("io.k8s.apimachinery.pkg.api.resource.Quantity", "io.k8s.apimachinery.pkg.util.intstr.IntOrString")


def write(openapi: Schema, folder: Path) -> None:
    """One file per kind, in which an unknown field is an error.

    Args:
        openapi: answer of the API server at /openapi/v2.
        folder: where they go; `LOCATION` there is kubeconform's schema location.
    """
    definitions = {name: _strict(schema) for name, schema in openapi["definitions"].items()}
    for name in _NUMBERS:
        definitions[name] = {"type": ["string", "number"]}
    for name, schema in definitions.items():
        for kind in schema.get(_KINDS, ()):
            document = {"$ref": _REFERENCE + name, "definitions": _reachable(name, definitions)}
            # kubeconform takes what stands before the slash for the group, and the core group has none.
            file = f"{kind['group'] or kind['version']}_{kind['version']}_{kind['kind'].lower()}.json"
            (folder / file).write_text(json.dumps(document))


def _strict(schema: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # A format is Kubernetes' own, such as int-or-string.
    closed = {key: _strict(value) for key, value in schema.items() if key != "format" or not isinstance(value, str)}
    lists_fields = "properties" in closed and "additionalProperties" not in closed
    if lists_fields and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed["additionalProperties"] = False
    return closed


def _reachable(name: str, definitions: Schema) -> Schema:
    reachable: Schema = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in reachable:
            reachable[current] = definitions[current]
            waiting += _references(definitions[current])
    return reachable


def _references(schema: Any) -> list[str]:  # noqa: ANN401 - any JSON
    if isinstance(schema, list):
        return [name for item in schema for name in _references(item)]
    if not isinstance(schema, dict):
        return []
    reference = schema.get("$ref")
    names = [reference.removeprefix(_REFERENCE)] if isinstance(reference, str) else []
    return names + [name for value in schema.values() for name in _references(value)]

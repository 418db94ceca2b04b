"""What somebody asked of an API server, by its audit log, and what roles grant."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Right = tuple[str, str, str]
"""API group, resource (with its subresource behind a slash), verb."""

FORBIDDEN = "forbid"
DECISION = "authorization.k8s.io/decision"
CREATED = 201


@dataclass(frozen=True)
class ApiRequests:
    """Rights that were used, and requests that were refused for want of a right."""

    used: frozenset[Right]
    refused: frozenset[Right]


def read_requests(logs: Iterable[Path], user: str) -> ApiRequests:
    """What a user asked for in these logs."""
    used, refused = set(), set()
    for event in _events(logs, user):
        rights = set(_rights(event))
        if event.get("annotations", {}).get(DECISION) == FORBIDDEN:
            refused |= rights
        else:
            used |= rights
    return ApiRequests(frozenset(used), frozenset(refused))


def _events(logs: Iterable[Path], user: str) -> Iterator[dict[str, Any]]:
    for log in logs:
        if log.exists():
            with log.open() as lines:
                # The last line may be half written.
                events = (json.loads(line) for line in lines if line.endswith("\n"))
                # A request that could not be authenticated has no name.
                yield from (event for event in events if event["user"].get("username") == user)


def _rights(event: dict[str, Any]) -> Iterator[Right]:
    reference = event.get("objectRef", {})
    if "resource" not in reference:
        return
    resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
    group = reference.get("apiGroup", "")
    yield group, resource, event["verb"]
    # A server-side apply of what is not there needs both.
    if event["verb"] == "patch" and event.get("responseStatus", {}).get("code") == CREATED:
        yield group, resource, "create"


def granted(roles: Iterable[dict[str, Any]]) -> frozenset[Right]:
    """All rights in these Roles and ClusterRoles."""
    return frozenset(
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def table(rights: frozenset[Right], used: frozenset[Right]) -> str:
    """Every right that is granted or used, and which of both it is."""
    rows = (
        f"{group or 'core':32} {resource:28} {verb:8} {'granted' if right in rights else '':8} "
        f"{'used' if right in used else ''}".rstrip()
        for right in sorted(rights | used)
        for group, resource, verb in [right]
    )
    return "\n".join(rows)

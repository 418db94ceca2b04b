"""Amounts of resources, as in a pod: whatever a pod could not have is refused."""

import re
from decimal import ROUND_UP, Decimal
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from diffusion_contract.base import ApiModel, Rule, keys_rule
from diffusion_contract.skus import SUBDOMAIN

MAX_QUANTITY_LENGTH = 24
RESOURCE_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
"""What follows the domain in the name of a device plugin's resource."""

_QUANTITY = r"^[+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?[0-9]))?$"
_RESOURCE = rf"cpu|memory|ephemeral-storage|{SUBDOMAIN}/{RESOURCE_NAME}"
_WHOLE = r"^[+]?[0-9]+([kMGTPE]|[KMGTPE]i)?$"
_MULTIPLES = {suffix: 1024**power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_POWERS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_LARGEST, _SMALLEST = Decimal(2**63 - 1), Decimal("1e-9")


def _check_quantity(value: str | int) -> str | int:
    if isinstance(value, str) and (len(value) > MAX_QUANTITY_LENGTH or re.fullmatch(_QUANTITY, value) is None):
        raise PydanticCustomError("quantity", "is not a Kubernetes quantity, such as 500m or 8Gi")
    return value


Quantity = Annotated[
    str | int,
    AfterValidator(_check_quantity),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": _QUANTITY,
            "maxLength": MAX_QUANTITY_LENGTH,
        }
    ),
    Rule(
        "type(self) == string || self >= 0",
        "a quantity must not be negative",
        lambda value: isinstance(value, str) or value >= 0,
    ),
]
"""A Kubernetes quantity, such as 500m or 8Gi."""


def amount(quantity: str | int) -> Decimal:
    """The number that a quantity stands for, rounded and capped as Kubernetes does."""
    text = str(quantity).removeprefix("+")
    suffix = text.lstrip("0123456789.")
    number = Decimal(text.removesuffix(suffix) or "0")
    if suffix in _MULTIPLES:
        number *= _MULTIPLES[suffix]
    elif suffix:
        number = number.scaleb(_POWERS[suffix] if suffix in _POWERS else int(suffix[1:]))
    return min(number.quantize(_SMALLEST, ROUND_UP) if number < 1 else number, _LARGEST)


def is_extended(name: str) -> bool:
    """Whether a resource is a device plugin's: whole numbers, of which every pod gets as many as it requests."""
    return "/" in name


_Amounts = Annotated[
    dict[str, Quantity],
    Field(max_length=8),
    keys_rule(
        _RESOURCE,
        "the name of a resource is cpu, memory, ephemeral-storage or <domain>/<name>, such as example.com/fpga: use "
        "one of these",
    ),
    Rule(
        "self.all(k, !k.contains('kubernetes.io/'))",
        "resources of the domain kubernetes.io are Kubernetes' own: use another name",
        lambda amounts: not any("kubernetes.io/" in name for name in amounts),
    ),
    Rule(
        f"self.all(k, !k.contains('/') || string(self[k]).matches('{_WHOLE}'))",
        "amounts of a device plugin's resource are whole numbers, such as 1",
        lambda amounts: all(re.fullmatch(_WHOLE, str(amounts[name])) for name in amounts if is_extended(name)),
    ),
]


class Resources(ApiModel):
    """Requests and limits of the container, as in a pod."""

    rules = (
        Rule(
            "!has(self.requests) || self.requests.all(k, !k.contains('/') || (has(self.limits) && k in self.limits "
            "&& string(self.limits[k]) == string(self.requests[k])))",
            "a device plugin's resource is requested as much as it is limited: give the same amount in limits, or "
            "leave it out of requests",
            lambda self: self.limits_extended(),
            ".requests",
        ),
        Rule(
            "!has(self.requests) || !has(self.limits) || self.requests.all(k, k.contains('/') || "
            "!(k in self.limits) || quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) "
            "<= 0)",
            "a request must not be larger than its limit",
            lambda self: self.has_ordered_amounts(),
            ".requests",
        ),
    )

    requests: _Amounts | None = Field(default=None, description="Requests (minimum), by resource name.")
    limits: _Amounts | None = Field(default=None, description="Limits (maximum), by resource name.")

    def limits_extended(self) -> bool:
        """Whether each device plugin's resource that is requested has the same limit."""
        limits = self.limits or {}
        pairs = [(name, quantity) for name, quantity in (self.requests or {}).items() if is_extended(name)]
        return all(name in limits and str(limits[name]) == str(quantity) for name, quantity in pairs)

    def has_ordered_amounts(self) -> bool:
        """Whether no request is larger than its limit."""
        requests, limits = self.requests or {}, self.limits or {}
        common = [name for name in requests if name in limits and not is_extended(name)]
        return all(amount(requests[name]) <= amount(limits[name]) for name in common)

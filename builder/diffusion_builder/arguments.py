"""JSON that stages are given as arguments."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.documents import problems_of

if TYPE_CHECKING:
    from collections.abc import Iterable

_Model = TypeVar("_Model", bound=BaseModel)


def parse(model: type[_Model], text: str, what: str) -> _Model:
    """Read a model from JSON text.

    Args:
        model: of the contract, such as Shapes or AssembleSpec.
        text: the JSON.
        what: the option's name, for the message.

    Raises:
        BadInputError: not JSON, or not valid; the message names the fields.
    """
    try:
        json.loads(text)
    except ValueError as error:
        raise BadInputError(Reason.INVALID_SPEC, f"{what} is not JSON: {error}") from error
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise invalid(what, problems_of(error)) from error


def invalid(what: str, problems: Iterable[str]) -> BadInputError:
    """The error about a specification.

    Args:
        what: option or file that it comes from.
        problems: each with its field.
    """
    return BadInputError(Reason.INVALID_SPEC, f"{what}: {'; '.join(problems)}")

"""Strings that match a regular expression of the CRD's schema."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

_SHORT_REPEAT = 3
_PRINTABLE = string.printable.strip()
_ATTEMPTS = 60


@dataclass(frozen=True)
class PatternSampler:
    """Draws strings of a pattern; the same random state gives the same strings.

    Attributes:
        generator: source of randomness.
    """

    generator: random.Random

    def sample(self, pattern: str, longest: int = 0) -> str:
        """A string that the whole pattern matches.

        Args:
            pattern: with the syntax that Python and RE2 have in common.
            longest: when positive, the string is as long as this where the pattern permits it, and never longer.

        Raises:
            ValueError: no string of the pattern is short enough.
        """
        tree = parser.parse(pattern)
        for attempt in range(_ATTEMPTS):
            # Nested repeats multiply: what is too long once is tried again with fewer of them.
            text = self._sequence(tree, max(longest >> attempt // 4, 1) if longest else _SHORT_REPEAT)
            for end in range(min(len(text), longest or len(text)), -1, -1):
                if re.fullmatch(pattern, text[:end]):
                    return text[:end]
        raise ValueError(f"no string of {pattern} has at most {longest} characters")

    def _sequence(self, tree: Any, repeats: int) -> str:  # noqa: ANN401 - a tree of the standard library's parser
        return "".join(self._node(name, argument, repeats) for name, argument in tree)

    def _node(self, name: object, argument: Any, repeats: int) -> str:  # noqa: ANN401, PLR0911 - a return for each part
        if name is op.LITERAL:
            return chr(argument)
        if name is op.IN:
            return self.generator.choice(sorted(_characters(argument)))
        if name is op.ANY:
            return self.generator.choice(_PRINTABLE)
        if name is op.NOT_LITERAL:
            return self.generator.choice([letter for letter in _PRINTABLE if letter != chr(argument)])
        if name is op.MAX_REPEAT:
            low, high, body = argument
            count = self.generator.randint(low, max(low, min(high, low + repeats)))
            return "".join(self._sequence(body, repeats) for _ in range(count))
        if name is op.SUBPATTERN:
            return self._sequence(argument[3], repeats)
        if name is op.BRANCH:
            return self._sequence(self.generator.choice(argument[1]), repeats)
        if name is op.AT:
            return ""
        raise ValueError(f"{name} is not a part of patterns that this sampler reads")


def _characters(members: Any) -> set[str]:  # noqa: ANN401 - a tree of the standard library's parser
    letters: set[str] = set()
    negated = False
    for name, argument in members:
        if name is op.NEGATE:
            negated = True
        elif name is op.LITERAL:
            letters.add(chr(argument))
        elif name is op.RANGE:
            letters |= {chr(code) for code in range(argument[0], argument[1] + 1)}
        elif name is op.CATEGORY and argument is op.CATEGORY_SPACE:
            letters |= set(string.whitespace)
        elif name is op.CATEGORY and argument is op.CATEGORY_NOT_SPACE:
            letters |= set(_PRINTABLE)
        elif name is op.CATEGORY and argument is op.CATEGORY_DIGIT:
            letters |= set(string.digits)
        else:
            raise ValueError(f"{name} is not a part of classes that this sampler reads")
    return set(_PRINTABLE) - letters if negated else letters

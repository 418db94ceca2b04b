"""How long a ControlNet's tensor of residuals is; standard library only."""

from collections.abc import Iterable, Mapping

# "residuals_per_level_0": channels of all residuals that have the size of the latent, 1: half of it, and so on.
_RESIDUALS_PER_LEVEL = "residuals_per_level_"


def residual_facts(layout: Iterable[tuple[int, int]]) -> dict[str, int]:
    """Record how many residual channels there are at each level.

    Args:
        layout: channels and level (0: the latent's size, 1: half of it, ...) of each residual.
    """
    facts: dict[str, int] = {}
    for channels, level in layout:
        name = f"{_RESIDUALS_PER_LEVEL}{level}"
        facts[name] = facts.get(name, 0) + channels
    return facts


def residual_elements(facts: Mapping[str, int], height: int, width: int) -> int:
    """How long `residuals` is for a latent of this size; 0 when the facts tell of none.

    A level halves the size of the one before and rounds up.
    """
    total = 0
    for name, channels in facts.items():
        if name.startswith(_RESIDUALS_PER_LEVEL):
            scale = 2 ** int(name.removeprefix(_RESIDUALS_PER_LEVEL))
            total += channels * -(-height // scale) * -(-width // scale)
    return total

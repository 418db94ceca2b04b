"""Shares of all users by the first two hex digits of a hash: 256 buckets, so a share is exact to 0.4 %."""

from collections.abc import Iterable, Iterator, Sequence

BUCKETS = 256
DIGITS = "0123456789abcdef"
FIRST_LETTER = 10


def allocate_buckets(weights: Sequence[int]) -> tuple[range, ...]:
    """Buckets of each share, one after the other, all of them; by the method of the largest remainder (Hamilton).

    Args:
        weights: parts of their sum; the earlier ones get the remaining buckets among equal remainders.
    """
    total = sum(weights)
    counts = [BUCKETS * weight // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda number: -(BUCKETS * weights[number] % total))
    for number in by_remainder[: BUCKETS - sum(counts)]:
        counts[number] += 1
    ends = [sum(counts[: number + 1]) for number in range(len(counts))]
    return tuple(range(end - count, end) for end, count in zip(ends, counts, strict=True))


def pattern(ranges: Iterable[range]) -> str:
    """Regular expression (RE2, of the whole value) for hashes in these buckets; lower-case digits."""
    alternatives = [text for first, stop in _merge_ranges(ranges) for text in _alternatives(first, stop)]
    return f"^({'|'.join(alternatives)}).*$"


def _merge_ranges(ranges: Iterable[range]) -> Iterator[tuple[int, int]]:
    """First and end of stretches without gaps."""
    start = stop = -1
    for item in sorted(ranges, key=lambda item: item.start):
        if item.start != stop:
            if stop > start:
                yield start, stop
            start = item.start
        stop = item.stop
    if stop > start:
        yield start, stop


def _alternatives(first: int, stop: int) -> Iterator[str]:
    while first < stop:
        row, column = divmod(first, 16)
        rows = (stop - first) // 16
        if column == 0 and rows:
            yield _digit_range(row, row + rows - 1) + _digit_range(0, 15)
            first += 16 * rows
        else:
            end = min(stop, 16 * (row + 1))
            yield DIGITS[row] + _digit_range(column, end - 1 - 16 * row)
            first = end


def _digit_range(first: int, last: int) -> str:
    """One hex digit from the first to the last."""
    if first == last:
        return DIGITS[first]
    numbers = _span(first, min(last, FIRST_LETTER - 1)) if first < FIRST_LETTER else ""
    letters = _span(max(first, FIRST_LETTER), last) if last >= FIRST_LETTER else ""
    return f"[{numbers}{letters}]"


def _span(first: int, last: int) -> str:
    return DIGITS[first] if first == last else f"{DIGITS[first]}-{DIGITS[last]}"

"""Durations as text, such as `30m` or `5ms`; standard library only."""

DURATION_PATTERN = r"^[1-9][0-9]*(s|m|h)$"
# Kubernetes counts the seconds of a Job's deadline in 32 bits.
TIMEOUT_PATTERN = r"^([1-9][0-9]{0,5}(s|m)|[1-9][0-9]{0,4}h)$"
SHORT_DURATION_PATTERN = r"^[0-9]+(us|ms|s)$"

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_MICROSECONDS = {"us": 1, "ms": 1000, "s": 1_000_000}


def duration_seconds(duration: str) -> int:
    """Seconds of a duration such as `90s`, `30m` or `2h`."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def duration_microseconds(duration: str) -> int:
    """Microseconds of a duration such as `500us`, `5ms` or `1s`."""
    unit = duration.lstrip("0123456789")
    return int(duration.removesuffix(unit)) * _MICROSECONDS[unit]

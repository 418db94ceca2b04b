"""The one error of the demo."""


class DemoError(Exception):
    """Says what went wrong, where, and what to do; written for the person at the terminal."""

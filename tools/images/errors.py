"""The one error that the command line shows."""


class ImageError(Exception):
    """Says what went wrong, where, and what to do; written for the person at the terminal."""

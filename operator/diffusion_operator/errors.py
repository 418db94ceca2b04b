"""Errors that a person reads: one sentence that says what to do."""


class OperatorError(Exception):
    """Something that stops the operator; the text is written for a person."""

    exit_code = 70


class BadInputError(OperatorError):
    """What was given (file, environment, spec) is wrong; trying again changes nothing."""

    exit_code = 64


class UnavailableError(OperatorError):
    """The API server or something else outside is not reachable now; trying again may help."""

    exit_code = 69

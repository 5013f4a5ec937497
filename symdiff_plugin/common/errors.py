"""Complaints of one line, with the remedy, and the exit status that goes with them."""

from __future__ import annotations


class EvaluationError(ValueError):
    """A run that cannot be evaluated; the message is one line, with the remedy."""

    exit_status = 2


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type's name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""Values of command-line flags from their text."""

from __future__ import annotations

import argparse
import ast
from typing import Any


def boolean(text: str) -> bool:
    """``True`` or ``False`` from the text of an argument, whatever its case; 1 and 0, yes and no do too.

    Raises:
        argparse.ArgumentTypeError: any other text.
    """
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.strip().lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return values[text.strip().lower()]


def mend_types(parser: argparse.ArgumentParser) -> None:
    """Let EDM's flags of ``type=eval`` take Python literals alone, and those of ``type=bool`` what they say."""
    for action in parser._actions:
        action.type = {eval: literal, bool: boolean}.get(action.type, action.type)


def literal(text: str) -> Any:
    """A Python literal (number, boolean, list, None, quoted text) from the text of an argument.

    Raises:
        argparse.ArgumentTypeError: the text is no literal.
    """
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a Python literal such as True or [1,4,10]") from None

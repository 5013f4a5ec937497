"""What a flag's value may be: kinds that read it from text and judge it, for every command line and every file.

A :class:`Kind` is what ``argparse`` takes for a ``type``, and judges values that came by another way (a preset, a
checkpoint, ``config.json``) by the same rule and in the same words. Nothing here needs torch.
"""

from __future__ import annotations

import argparse
import ast
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

LARGEST = 2**31 - 1  # of whole numbers without another limit: beyond it torch and Python's own tools overflow
MOST_SAMPLES = 10_000_000  # molecules in one sampling: they are held in memory, a few hundred bytes each
_SHOWN = 60  # characters of a wrong value


@dataclass(frozen=True)
class Kind:
    """What a value may be.

    Attributes:
        words: what it must be, behind "must be".
        read: the value of a text; raises ValueError or the like for a text that is none.
        accepts: whether a value is one; of any type.
        metavar: for ``--help``; argparse's own if None.
        optional: whether None, which no text gives, will do: the flag was not given.
        each: of a flag that takes several words: the kind of each.
    """

    words: str
    read: Callable[[str], Any]
    accepts: Callable[[Any], bool]
    metavar: str | None = None
    optional: bool = False
    each: Kind | None = None

    def __call__(self, text: str) -> Any:
        """The value of ``text``, of one of the words of a flag that takes several.

        Raises:
            argparse.ArgumentTypeError: it is none of this kind.
        """
        if self.each is not None:
            return self.each(text)
        try:
            value = self.read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise argparse.ArgumentTypeError(f"must be {self.words}, not {text[:_SHOWN]!r}") from None
        if fault := self.fault(value):
            raise argparse.ArgumentTypeError(fault)
        return value

    def fault(self, value: Any) -> str | None:
        """Why ``value`` is none of this kind, as "must be ..., not ..."; None if it is."""
        if value is None and self.optional:
            return None
        if self.each is not None and isinstance(value, list | tuple):
            for one in value:
                if fault := self.each.fault(one):
                    return fault
        return None if self.accepts(value) else f"must be {self.words}, not {str(value)[:_SHOWN]}"


def optional(kind: Kind) -> Kind:
    """``kind`` or None."""
    return replace(kind, optional=True)


def whole(least: int = 1, most: int = LARGEST) -> Kind:
    """A whole number from ``least`` to ``most``; a float without a fraction is one, as in EDM's defaults."""
    return Kind(
        f"a whole number from {least} to {most}", int,
        lambda value: _is_number(value) and value == math.floor(value) and least <= value <= most,
        metavar="N",
    )  # fmt: skip


def real(interval: str) -> Kind:
    """A number in ``interval``, written as in "(0, 0.5]"; "inf" with a square bracket admits infinity itself."""
    found = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", interval)
    assert found is not None, interval
    least, most = float(found[2]), float(found[3])

    def accepts(value: Any) -> bool:
        if not _is_number(value, infinite=True):
            return False
        return (value > least or (found[1] == "[" and value == least)) and (
            value < most or (found[4] == "]" and value == most)
        )

    return Kind(f"a number in {interval}", float, accepts, metavar="X")


def choice(*options: str) -> Kind:
    """One of ``options``."""
    return Kind(f"one of {', '.join(options)}", str, options.__contains__, metavar="|".join(options))


def several(kind: Kind) -> Kind:
    """Any number of different values of ``kind``; the flag takes several words (``nargs="+"``)."""
    return Kind(
        f"different values, each {kind.words}", str,
        lambda value: isinstance(value, list | tuple) and all(value.count(one) == 1 for one in value),
        each=kind,
    )  # fmt: skip


def positive_numbers(count: int, least: float, most: float, example: str) -> Kind:
    """A list of ``count`` numbers from ``least`` to ``most``, as a Python literal."""
    return Kind(
        f"{count} numbers from {least:g} to {most:g} such as {example}", literal,
        lambda value: isinstance(value, list | tuple)
        and len(value) == count
        and all(_is_number(one) and least <= one <= most for one in value),
    )  # fmt: skip


def word_or(kind: Kind, word: str) -> Kind:
    """A value of ``kind``; or ``word``, which stands for None."""
    return Kind(
        f"{kind.words}, or {word}", lambda text: None if text == word else kind.read(text), kind.accepts,
        metavar=f"{kind.metavar}|{word}", optional=True,
    )  # fmt: skip


def boolean(text: str) -> bool:
    """``True`` or ``False`` from the text of an argument, whatever its case; 1 and 0, yes and no do too.

    Raises:
        ValueError: any other text.
    """
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return values[text.strip().lower()]
    except KeyError:
        raise ValueError(text) from None


def literal(text: str) -> Any:
    """A Python literal (number, boolean, list, None, quoted text) from the text of an argument; nothing is executed.

    Raises:
        ValueError, SyntaxError, TypeError, MemoryError, RecursionError: the text is no literal.
    """
    return ast.literal_eval(text.strip())


def polynomial_power(schedule: Any) -> float | None:
    """P of a noise schedule called ``polynomial_P``; None if it is not called so, or P is not in (0, 100]."""
    found = re.fullmatch(r"polynomial_(\d{1,3}(?:\.\d{1,9})?)", schedule) if isinstance(schedule, str) else None
    return float(found[1]) if found and 0 < float(found[1]) <= 100 else None


def _is_number(value: Any, infinite: bool = False) -> bool:
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and not math.isnan(value) and (infinite or not math.isinf(value))


def _is_folder_name(value: Any) -> bool:
    parts = value.split("/") if isinstance(value, str) else [""]
    return all(
        part.isprintable() and "\\" not in part and not part.startswith((".", "-")) and 0 < len(part.encode()) <= 200
        for part in parts
    )


BOOLEAN = Kind("True or False", boolean, lambda value: isinstance(value, bool), metavar="True|False")
TEXT = Kind("text", str, lambda value: isinstance(value, str))
# It ends up in outputs/, whatever it is.
FOLDER_NAME = Kind("the name of a folder in outputs/, which neither . nor - begins", str, _is_folder_name)
SCHEDULE = Kind(
    "learned, cosine or polynomial_P with P in (0, 100], such as polynomial_2", str,
    lambda value: value in ("learned", "cosine") or polynomial_power(value) is not None,
)  # fmt: skip
DEVICE = Kind(
    "cpu, cuda, cuda:N or mps", str,
    lambda value: isinstance(value, str) and re.fullmatch(r"cpu|mps|cuda(:\d{1,2})?", value) is not None,
)  # fmt: skip
SEED = whole(0, 2**32 - 1)
SAMPLES = whole(1, MOST_SAMPLES)

"""``args.pickle``, in which EDM and what descends from it keep a run's arguments, read without running anything.

A pickle is a program: ``pickle.load`` calls whatever it names. These files need one name, ``argparse.Namespace``, and
plain values; a reader that knows nothing else is safe with files from anywhere.
"""

from __future__ import annotations

import argparse
import io
import pickle
from pathlib import Path
from typing import Any

FILE_NAME = "args.pickle"
_BYTES_AT_MOST = 1 << 20  # the largest that EDM writes have 2,000
_PLAIN = (type(None), bool, int, float, str)


class ArgumentsError(ValueError):
    """An ``args.pickle`` that cannot be read; the message is one line, with the remedy."""

    exit_status = 2


def read_args_pickle(path: Path) -> argparse.Namespace:
    """The arguments in an ``args.pickle``.

    Raises:
        ArgumentsError: it is missing, damaged, or holds anything but a namespace of plain values.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_BYTES_AT_MOST + 1)
    except OSError as error:
        raise ArgumentsError(
            f"{path} cannot be read ({error.strerror or error}): give the folder of a run, such as outputs/symdiff"
        ) from error
    fault = "is damaged"
    if len(content) <= _BYTES_AT_MOST:
        reader = _Reader(content)
        try:
            found = reader.load()
            if type(found) is reader.record and all(map(_is_plain, vars(found).values())):
                return argparse.Namespace(**vars(found))
            fault = "holds more than a run's arguments"
        except Exception as error:  # a damaged pickle can make its reader raise nearly anything
            fault = reader.refused or f"is damaged ({type(error).__name__})"
    raise ArgumentsError(f"{path} {fault}; nothing of it was run: take it from its source again")


class _Reader(pickle.Unpickler):
    """Knows one name; ``refused`` says which other was asked for."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        # A class of this reading alone: a pickle can set attributes of the class, too.
        self.record = type("Record", (), {})
        self.refused: str | None = None

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("argparse", "Namespace"):
            return self.record
        self.refused = f"asks for {module}.{name}, which no run's arguments need"
        raise pickle.UnpicklingError(self.refused)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, [*value, *value.values()]))
    return type(value) in _PLAIN

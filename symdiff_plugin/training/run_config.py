"""``config.json`` of a run, read: the same checks wherever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from symdiff_plugin.common.files import read_json
from symdiff_plugin.training import flag_table

CONFIG = "config.json"
_WORDS = {"model": str, "command": str | None, "device": str | None, "seed": int | None}
_TABLES = {"args": object, "architecture": object, "versions": str | None, "parameters": int, "molecules": int}


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration in the folder of a run.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        ValueError: it is of another shape, or a flag in it has an impossible value; the message is one line.
    """
    path = folder / CONFIG
    try:
        record = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}: restore it or train again") from error
    if fault := _fault(record):
        raise ValueError(f"{path} is no configuration of a run ({fault}): restore it or train again")
    return record


def _fault(record: dict[str, Any]) -> str | None:
    if not isinstance(record.get("args"), dict) or "model" not in record:
        return "no 'model' or no 'args'"
    for name, kind in _WORDS.items():
        if not isinstance(record.get(name), kind):
            return f"its {name} is {str(record[name])[:60]}"
    for name, each in _TABLES.items():
        table = {} if record.get(name) is None else record[name]
        if not isinstance(table, dict) or not all(isinstance(value, each) for value in table.values()):
            return f"its {name} is {str(table)[:60]}"
    found = flag_table.fault(record["args"])
    return f"its {found[0]} {found[1]}" if found else None

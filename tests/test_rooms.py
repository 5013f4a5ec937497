"""The package's rooms: imports go one way, and no two things share a name."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import symdiff_plugin

PACKAGE = Path(symdiff_plugin.__file__).parent
TESTS = Path(__file__).parent
# From the ground up: a room imports from those before it.
ROOMS = (
    "common", "edm", "data", "molecules", "packed", "presets", "model", "process", "training", "pretrained", "evaluate",
    "benchmark", "report", "sample", "compat", "hooks", "__main__",
)  # fmt: skip


def imported(source: str) -> Iterator[str]:
    """The rooms that a module imports from, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "symdiff_plugin":
            names = [f"symdiff_plugin.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (name.split(".")[1] for name in names if name.startswith("symdiff_plugin."))


def upward(room: str, source: str) -> list[str]:
    return [other for other in imported(source) if ROOMS.index(other) > ROOMS.index(room)]


def test_every_room_has_its_place() -> None:
    there = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert there - {"__init__"} == set(ROOMS)
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_imports_go_down() -> None:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__" and (up := upward(room, path.read_text(encoding="utf-8"))):
            found[path.name] = up
    assert found == {}


def test_an_import_that_goes_up_is_seen() -> None:
    assert upward("model", "def f():\n    from symdiff_plugin.training.run import Run") == ["training"]
    assert upward("data", "from symdiff_plugin import hooks, presets") == ["hooks", "presets"]
    assert upward("training", "import symdiff_plugin.model.dit") == []


def test_no_two_modules_share_a_name() -> None:
    names = Counter(path.stem for path in PACKAGE.rglob("*.py") if not path.stem.startswith("__"))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_tests_mirror_the_rooms() -> None:
    folders = {path.relative_to(TESTS).parent.parts for path in TESTS.rglob("test_*.py")} - {()}
    assert [parts for parts in folders if not (PACKAGE / Path(*parts)).is_dir()] == []
    names = Counter(path.stem for path in TESTS.rglob("*.py") if path.stem != "conftest")
    assert [name for name, count in names.items() if count > 1] == []


# `main` and `add_arguments` are how the modules of a command line are called. hooks.py is a door: what EDM calls there
# goes by the name of what does the work behind it.
SAID_TWICE = {"main", "add_arguments"}
DOOR = "hooks"


def defined(source: str) -> list[str]:
    """The public classes and functions of a module, not those inside others."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = [node.name for node in ast.parse(source).body if isinstance(node, kinds)]
    return [name for name in names if not name.startswith("_")]


def test_no_two_classes_or_functions_share_a_name() -> None:
    where: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for name in defined(path.read_text(encoding="utf-8")):
            if path.stem != DOOR and name not in SAID_TWICE:
                where.setdefault(name, []).append(path.stem)
    assert len(where) > 300
    assert {name: modules for name, modules in where.items() if len(modules) > 1} == {}


def test_a_definition_is_seen() -> None:
    assert defined("class Run:\n    def go(self): ...\ndef read(): ...\ndef _read(): ...\nx = read") == ["Run", "read"]

"""scripts/mutate.py on a module of a few lines: what it reports, what it does not, and what it keeps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
MODULE = '''
"""A toy."""

LIMIT = 3


def clip(x):
    if x > LIMIT:
        return LIMIT
    return x


class Scale:
    factor = 5

    def __init__(self, by=1):
        self.by = by

    @property
    def twice(self):
        return 2 * self.by


def seen(x):
    return x + 1


def unseen(x):
    return x + 1
'''
TESTS = """
from toy.module import Scale, clip, seen, unseen


def test_all():
    assert (clip(5), clip(1), seen(4), Scale().twice, Scale(4).twice, Scale.factor) == (3, 1, 5, 2, 8, 5)
    unseen(4)
"""
RUN = """
import sys
sys.path.insert(0, {scripts!r})
from pathlib import Path
import mutate
mutate.ROOT, mutate.PACKAGE, mutate.LIBRARIES = Path.cwd(), "toy", ("pytest",)
mutate.EQUIVALENT, mutate.TESTS = Path("equivalent.json"), {{"module": ["test_toy.py"]}}
sys.exit(mutate.main([]))
"""
BOUNDARY = "clip: x > LIMIT -> x >= LIMIT"
UNSEEN = {"unseen: x + 1 -> x - 1", "unseen: 1 -> 2", "unseen: return x + 1 -> return None"}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/__init__.py").touch()
    (tmp_path / "toy/module.py").write_text(MODULE)
    (tmp_path / "test_toy.py").write_text(TESTS)
    return tmp_path


def run(folder: Path, equivalent: list[str]) -> tuple[int, set[str], list[str]]:
    """The exit status, what is said to survive, and all lines."""
    (folder / "equivalent.json").write_text(json.dumps({"module": dict.fromkeys(equivalent, "a reason")}))
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(scripts=str(SCRIPTS))], cwd=folder, capture_output=True, text=True,
        env={"PYTHONPATH": str(folder), "PATH": ""}, timeout=100,
    )  # fmt: skip
    lines = done.stdout.splitlines() + done.stderr.splitlines()
    survived = {line.split("  survived  ")[1] for line in lines if "  survived  " in line}
    return done.returncode, survived, lines


def test_survivors_are_reported_and_the_killed_are_not(toy: Path) -> None:
    status, survived, lines = run(toy, [])
    assert status == 1, lines
    assert {line.split(": ", 1)[1] for line in survived} == {BOUNDARY, *UNSEEN}
    number = MODULE.splitlines().index("    if x > LIMIT:") + 1
    assert f"toy/module.py:{number}: {BOUNDARY}" in survived
    kept = json.loads((toy / ".mutation/module.json").read_text())["mutants"]
    assert {key for key, verdict in kept.items() if verdict == "survived"} == {BOUNDARY, *UNSEEN}
    for key in ("module: 3 -> 4", "Scale: 5 -> 6", "Scale.__init__: 1 -> 2", "Scale.twice: 2 -> 3", "seen: 1 -> 2"):
        assert kept[key] == "killed"  # constants of the module and of a class, defaults, properties, functions
    assert lines[-1].split() == ["module", str(len(kept)), str(len(kept) - 4), "0", "4"]


def test_listed_ones_pass_and_a_better_test_kills_the_others(toy: Path) -> None:
    run(toy, [])
    (toy / "test_toy.py").write_text(TESTS.replace("unseen(4)", "assert unseen(4) == 5"))
    status, survived, lines = run(toy, [BOUNDARY])  # goes on from the first run: only survivors are tried again
    assert (status, survived) == (0, set()), lines
    status, survived, lines = run(toy, [BOUNDARY, "clip: no -> such"])
    assert (status, survived) == (1, set())
    assert any("no such mutant any more: module: clip: no -> such" in line for line in lines)


def test_tests_that_fail_anyway_are_no_evidence(toy: Path) -> None:
    (toy / "test_toy.py").write_text(TESTS.replace("unseen(4)", "assert False"))
    status, survived, lines = run(toy, [])
    assert (status, survived) == (1, set())
    assert "must be there and pass before anything is mutated" in lines[-1]

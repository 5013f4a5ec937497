"""The command ``symdiff``: its words lead to the programs, it loads no other, and a mistake is one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from symdiff_plugin import __version__
from symdiff_plugin.__main__ import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent


def run(*words: str, code: str | None = None, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    target = ["-m", "symdiff_plugin"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *options, *target, *words],
        cwd="/", env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def usage(name: str, capsys: pytest.CaptureFixture[str], entry=main) -> str:
    with pytest.raises(SystemExit) as stop:
        entry([*name.split(), "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_its_own_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.match(rf"usage: symdiff {name} \[", usage(name, capsys))
    module = COMMANDS[name][0]
    called = f"python -m {module.removesuffix('.__main__')}"
    assert usage("", capsys, import_module(module).main).startswith(f"usage: {called} ")


def test_the_programs_of_the_issue_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    shown = usage("", capsys)
    assert shown.startswith("usage: symdiff COMMAND ...")
    for name in ("sample", "evaluate", "report", "benchmark", "data qm9", "data geom", "edm", "pretrained"):
        assert re.search(rf"^  {name}  +\w", shown, re.MULTILINE)
    of_data = usage("data", capsys)
    assert of_data.startswith("usage: symdiff data COMMAND ...")
    assert re.findall(r"^  (\w+)  ", of_data, re.MULTILINE) == ["qm9", "geom"]
    assert usage("data geom own", capsys).startswith("usage: symdiff data geom own [-h] --name")
    assert usage("edm get", capsys).startswith("usage: symdiff edm get ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("sampel --seed 0", "symdiff: no command 'sampel'; did you mean sample?"),
        ("data.qm9", "symdiff: no command 'data.qm9'; did you mean data qm9?"),
        ("dta", "symdiff: no command 'dta'; did you mean data?"),
        ("data qm8 --datadir x", "symdiff data: no command 'qm8'; did you mean qm9?"),
        ("xyzzy", "symdiff: no command 'xyzzy' ("),
        ("", "symdiff: give a COMMAND ("),
        ("data", "symdiff data: give a COMMAND ("),
        ("--seed sample", "symdiff: unrecognized arguments: --seed ("),
        ("sample --seeds 0", "symdiff sample: unrecognized arguments: --seeds"),
        ("data geom own x --name ..", "symdiff data geom own: "),
    ],
)
def test_a_mistake_is_one_line(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(words.split())
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(says)


def test_a_command_gets_the_words_behind_it_and_gives_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrained", "list"]) == 0
    assert "qm9-mini: symdiff_tiny" in capsys.readouterr().out
    assert main(["data", "qm9", "--datadir", "x", "--archive", "/nowhere/dsgdb9nsd.xyz.tar.bz2"]) == 2
    assert capsys.readouterr().err.startswith("symdiff data qm9: ")


def test_help_loads_nothing_and_edm_needs_the_standard_library_alone() -> None:
    loaded = run(code="import sys\nfrom symdiff_plugin.__main__ import main\ntry: main(['--help'])\nfinally: "
                 "print(*sorted(m.split('.')[0] for m in sys.modules))").stdout.split()  # fmt: skip
    assert "argparse" in loaded
    assert {"torch", "numpy", "scipy", "rdkit", "matplotlib", "tqdm"}.isdisjoint(loaded)
    bare = ("-S",)  # no site-packages
    path = run("edm", "path", options=bare)
    assert (path.returncode, path.stderr) == (0, "")
    assert path.stdout.strip().endswith("e3_diffusion_for_molecules")
    assert run("pretrained", "list", options=bare).returncode == 1  # negative control: this one needs torch


def test_version_and_console_script() -> None:
    assert run("--version").stdout.strip() == __version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    module, _, function = project["scripts"]["symdiff"].partition(":")
    assert getattr(import_module(module), function) is main

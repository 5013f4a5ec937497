"""The snippets of README.md and docs/, and a place to run them in where what takes hours is only recorded.

Shell snippets are run by bash, our scripts with them. Only Python, pip and symdiff are stand-ins there, which write
down how they are called; each such call is then read by the real parser of what is called, or run for real where it
takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from symdiff_plugin.edm import add_edm_to_path

ROOT = Path(__file__).resolve().parents[2]
_ALL = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md")))
DOCUMENTS = tuple(str(path.relative_to(ROOT)) for path in _ALL if path.is_file())
GENERATED = "docs/cpu_study/report.md"

# An inline piece of code is a snippet where it begins like this: a program with something behind it, or a script.
_COMMAND = re.compile(
    r"([A-Z_]+=\S* )*(\S*/)?(python3?|pip|symdiff) |([A-Z_]+=\S* )*((\./)?run_\w+\.sh\b|\S+\.(sh|py) )"
)
_FENCE = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")
_CODE = re.compile(r"(?s)(?<!`)`([^`\n]+(?:\n[^`\n]+)*)`(?!`)")


@dataclass(frozen=True)
class Snippet:
    """One block, or one piece of code in a line; ``language`` is the block's, ``inline`` of the latter."""

    place: str
    language: str
    text: str


def snippets(name: str, text: str) -> list[Snippet]:
    """All blocks of a document, and the commands within its lines."""
    found = [
        Snippet(f"{name}:{text.count(chr(10), 0, match.start()) + 1}", match[1], match[2])
        for match in _FENCE.finditer(text)
    ]
    return found + [Snippet(place, "inline", code) for place, code in codes(name, text) if _COMMAND.match(code)]


def codes(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Place and text, on one line, of every piece of code outside the blocks."""
    outside = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    for match in _CODE.finditer(outside):
        yield f"{name}:{outside.count(chr(10), 0, match.start()) + 1}", " ".join(match[1].split())


class Fault(AssertionError):
    """A snippet that does not work."""


# What the scripts may use besides bash itself; anything else in a snippet is unknown until somebody says what it is.
_TOOLS = (
    "bash", "basename", "cat", "cksum", "cp", "cut", "dirname", "env", "grep", "head", "ln", "ls", "mkdir", "mv",
    "paste", "rm", "rmdir", "sed", "seq", "sort", "tail", "touch", "tr", "uname",
)  # fmt: skip
_STAND_IN = """#!/usr/bin/env bash
record() { printf '%s\\0' "$@" $'\\x1e' >>"$RECORD"; }
case ${0##*/} in
    symdiff)
        set -- -m symdiff_plugin "$@"
        program=python
        ;;
    *) program=${0##*/} ;;
esac
case "$*" in
    "-m pip --version" | "-I -c "*) exit 0 ;;
    "-c "* | "-m symdiff_plugin.presets "*) record done "$@" && exec "$REAL_PYTHON" "$@" ;;
esac
record "$program" "$@"
# What the next command may look for.
out= name= previous=
for word; do
    case $previous in --out | --datadir) out=$word ;; --name) name=$word ;; esac
    previous=$word
done
case "$*" in
    *"data qm9"* | *data.qm9*) mkdir -p "$out" && { [ -e "$out/qm9" ] || ln -s "$QM9" "$out/qm9"; } ;;
    *"data geom rdkit"* | *"data.geom rdkit"*) mkdir -p "$out" && : >"$out/drugs_crude.msgpack" ;;
    *"data geom convert"* | *"data.geom convert"*) mkdir -p "$out" && : >"$out/geom_drugs_30.npy" ;;
    *"data geom own"* | *"data.geom own"*) mkdir -p "data/$name" && : >"data/$name/$name.npy" ;;
esac
"""
# GNU time may not be there; EDM's scripts may be mentioned without their folder.
_PRELUDE = '/usr/bin/time() { shift; "$@"; }\n' + "".join(
    f'{name}() {{ python e3_diffusion_for_molecules/{name} "$@"; }}\n' for name in ("main_qm9.py", "main_geom_drugs.py")
)
# Files that one snippet makes and others take.
_MADE = {"data/geom/geom_drugs_30.npy": "--archive", "data/mine/mine.npy": "geom own"}


class Place:
    """A folder that looks like a clone after its set-up.

    Args:
        folder: to be made.
        qm9: the folder of three small ``*.npz``.
        inputs: files of the user's own that the documents name; the real commands read them.
    """

    def __init__(self, folder: Path, qm9: Path, inputs: Path) -> None:
        self.folder, self.record, self.real = folder, folder / "record", folder / "real"
        for place in (folder, self.real):
            (place / "data").mkdir(parents=True)
            (place / "data" / "qm9").symlink_to(qm9)
            for path in inputs.iterdir():
                shutil.copytree(path, place / path.name) if path.is_dir() else shutil.copy(path, place / path.name)
            for path in ROOT.iterdir():
                if path.name not in (".git", ".venv", "data", "outputs", "samples"):
                    (place / path.name).symlink_to(path)
        of_venv = (".venv/bin/python", ".venv/bin/pip", ".venv/bin/ruff", ".venv/bin/symdiff")
        for name in ("tools/python", "tools/python3", "tools/pip", "tools/symdiff", *of_venv):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_STAND_IN)
            path.chmod(0o755)
        (folder / ".venv/bin/activate").write_text(f'PATH="{folder}/.venv/bin:$PATH"\n')
        for name in _TOOLS:
            (folder / "tools" / name).symlink_to(shutil.which(name))
        self.environment = {
            "PATH": str(folder / "tools"), "HOME": str(folder), "RECORD": str(self.record), "QM9": str(qm9),
            "REAL_PYTHON": sys.executable,
        }  # fmt: skip

    def calls(self, text: str) -> list[list[str]]:
        """How Python and pip are called by a shell snippet, in order.

        Raises:
            Fault: bash, a script of ours or a tool ends with an error, or something is called that nobody knows.
        """
        for name, maker in _MADE.items():
            if maker not in text:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).touch()
        self.record.write_bytes(b"")
        done = subprocess.run(
            ["bash", "-eu", "-c", _PRELUDE + text],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        if done.returncode:
            raise Fault(f"exit status {done.returncode}: {done.stderr[-1000:]}")
        found = [record.split("\0")[:-1] for record in self.record.read_text().split("\x1e\0")]
        return [call for call in found if call]

    def check(self, text: str, real: tuple[str, ...] = ()) -> list[str]:
        """Run a shell snippet as far as it goes, and see that every call in it would be understood.

        Args:
            text: the snippet.
            real: beginnings of the calls that are run for real.

        Returns:
            The calls, each as one text, the real ones marked with an asterisk.

        Raises:
            Fault: something in it does not work.
        """
        done = []
        for call in self.calls(text):
            line = " ".join(call)
            if call[0] == "done":  # at once: the scripts needed its answer
                done.append(f"*{line}")
            elif line.partition(" ")[2].startswith(real or "\0"):
                with _inside(self.real):
                    start(call[1:])
                done.append(f"*{line}")
            else:
                with _inside(self.folder):
                    understand(call)
                done.append(line)
        if not done:
            raise Fault("nothing is called")
        return done


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class Parsed(BaseException):
    """The command line was read to its end."""


def understand(call: list[str]) -> None:
    """Have a recorded call's words read by the parser of what it calls.

    Raises:
        Fault: the parser refuses them, or a file of ours that they name is not there.
    """
    program, *words = call
    for word in words:
        if re.match(r"(docs|examples|patches|scripts|symdiff_plugin|tests|e3_diffusion_for_molecules)/", word):
            _require((ROOT / word).exists(), f"there is no {word}")
    if program == "pip" or words[:2] == ["-m", "pip"]:
        _understand_pip(words if program == "pip" else words[2:])
    elif program == "ruff" or words[:2] in (["-m", tool] for tool in ("ruff", "mypy", "pytest", "sphinx")):
        importlib.metadata.version("ruff" if program == "ruff" else words[1])
    else:
        with contextlib.suppress(Parsed), stopping_at_parsing():
            start(words)


def start(words: list[str]) -> None:
    """``python WORDS`` in this process.

    Raises:
        Fault: it ends with an error, or reads no command line, so that nobody could stop it there.
    """
    target, *arguments = words[1:] if words[0] == "-m" else words
    reads = re.search(r"parse_(known_)?arg|parse_evaluation|runpy", _source(target, words[0] == "-m"))
    _require(reads, f"{target}: reads no command line")
    with (
        mock.patch.object(sys, "argv", [target, *arguments]),
        mock.patch.object(sys, "path", [*sys.path]),
        mock.patch.object(signal, "signal"),
        # Folders that are there stand for what a command makes, and it makes them anew.
        mock.patch("symdiff_plugin.training.earlier_run.why_spared", return_value=None),
    ):
        if target.startswith("e3_diffusion_for_molecules/"):
            add_edm_to_path()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of modules that are imported already
                if words[0] == "-m":
                    runpy.run_module(target, run_name="__main__", alter_sys=True)
                else:
                    sys.path.insert(0, str(Path(target).resolve().parent))  # as python does with a script
                    runpy.run_path(target, run_name="__main__")
        except SystemExit as end:
            _require(not end.code, f"{' '.join(words)}: exit status {end.code}")
        except ImportError as error:
            raise Fault(f"{' '.join(words)}: {error}") from error


def _source(target: str, is_module: bool) -> str:
    """The text of a script or of what ``python -m`` runs."""
    if not is_module:
        _require(Path(target).is_file(), f"there is no {target}")
        return Path(target).read_text(encoding="utf-8")
    try:
        found = importlib.util.find_spec(target)
        if found is not None and found.submodule_search_locations is not None:
            found = importlib.util.find_spec(f"{target}.__main__")
    except ImportError:
        found = None
    _require(found is not None, f"python -m {target}: no such module")
    # The standard library's venv is a call of what it parses with.
    return "parse_args" if target == "venv" else Path(found.origin).read_text(encoding="utf-8")


@contextlib.contextmanager
def stopping_at_parsing(parsers: list[argparse.ArgumentParser] | None = None) -> Iterator[None]:
    """Inside, every program of ours stops with :class:`Parsed` when it has read its command line.

    EDM's scripts have theirs read by our ``hooks.parse_args``, which looks at the values, too. Whatever other
    commands would have made (trained weights, all of QM9) counts as there.
    """
    from symdiff_plugin import hooks
    from symdiff_plugin.model import dynamics
    from symdiff_plugin.training import arguments, init_from

    network, parser = dynamics.SymDiffDynamics, argparse.ArgumentParser
    within = []

    def stopping(read: Callable[..., Any]) -> Callable[..., Any]:
        def stop(parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
            if within:
                return read(parser, *args, **kwargs)
            if parsers is not None:
                parsers.append(parser)
            within.append(parser)
            try:
                result = read(parser, *args, **kwargs)
            finally:
                within.clear()
            if (
                isinstance(result, tuple) and result[1]
            ):  # EDM's eval scripts take any flag, ours in the documents are known
                raise Fault(f"unknown {' '.join(result[1])}")
            raise Parsed

        return stop

    with (
        mock.patch.object(parser, "parse_args", stopping(parser.parse_args)),
        mock.patch.object(parser, "parse_known_args", stopping(parser.parse_known_args)),
        mock.patch.object(hooks, "parse_args", stopping(hooks.parse_args)),
        mock.patch.object(init_from, "check_initial_weights"),
        mock.patch.object(arguments, "default_datadir", return_value=Path("data")),
        # What docs/cpu_study/choices.py replaces is put back.
        mock.patch.multiple(dynamics, compose=dynamics.compose, GaussianPairEmbedding=dynamics.GaussianPairEmbedding),
        mock.patch.object(network, "draw", network.draw),
    ):
        yield


def _understand_pip(words: list[str]) -> None:
    _require(words[:1] == ["install"], f"pip {' '.join(words)}: not an installation")
    # Not pip's own parser: to import pip puts the standard library's distutils in setuptools' place (Python 3.11).
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", dest="constraints", action="append", default=[])
    parser.add_argument("-e", dest="editables", action="append", default=[])
    parser.add_argument("--retries", type=int)
    for switch in ("--quiet", "--disable-pip-version-check"):
        parser.add_argument(switch, action="store_true")
    parser.add_argument("packages", nargs="*")
    try:
        options = parser.parse_args(words[1:])
    except (SystemExit, argparse.ArgumentError) as error:
        raise Fault(f"pip {' '.join(words)}: {error}") from error
    for name in options.constraints:
        _require((ROOT / name).is_file(), f"there is no {name}")
    declared = set(importlib.metadata.metadata("symdiff-plugin").get_all("Provides-Extra"))
    for requirement in (*options.editables, *options.packages):
        match = re.fullmatch(r"(\.|symdiff-plugin)(?:\[([\w,]+)\])?", requirement)
        _require(match is not None, f"pip install {requirement}: not our package")
        unknown = set((match[2] or "").split(",")) - declared - {""}
        _require(not unknown, f"pip install {requirement}: no such extra")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise Fault(message)

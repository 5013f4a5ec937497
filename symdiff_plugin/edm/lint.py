"""Rules for ``patches/``: one idea each, small, explained, and next to nothing of upstream quoted.

A patch is a header, then ``git diff -U1``. The header's first line is one sentence that says what the patch
does, free text may say why, and ``Upstream: path:lines[, path:lines]`` names what it changes at the pinned commit.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from symdiff_plugin.edm import Edm
from symdiff_plugin.edm.git import git

MAX_CHANGED_LINES = 40
MAX_CONTEXT = 1

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\.patch")
_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_UPSTREAM = re.compile(r"([\w./-]+\.\w+):\d+")
_IMPORT = re.compile(r"\s*(?:from\s+symdiff_plugin(?P<rest>\S*)\s+import\s+(?P<names>.+)|import\s+symdiff_plugin)")


@dataclass
class _File:
    """What a patch does to one file: the first and second path of ``diff --git``, its hunks' lines."""

    old: str
    new: str
    head: list[str] = field(default_factory=list)
    hunks: list[list[str]] = field(default_factory=list)


def upstream_files(edm: Edm | None = None) -> set[str]:
    """The paths that EDM has at the pinned commit.

    Raises:
        EdmError: EDM is not checked out.
    """
    edm = edm or Edm()
    return set(git("ls-tree", "-r", "-z", "--name-only", edm.sha, cwd=edm.directory).decode().split("\0")) - {""}


def lint(patches: Path, files: Collection[str] | None = None) -> list[str]:
    """Everything that is wrong with a series, a sentence each; empty for a good one.

    Args:
        patches: the folder with ``series`` and the patches.
        files: the paths upstream has (:func:`upstream_files`); not checked where None.
    """
    series = patches / "series"
    if not series.is_file():
        return [f"{series}: missing"]
    lines = [line.strip() for line in series.read_text(encoding="utf-8").splitlines()]
    listed = [line for line in lines if line and not line.startswith("#")]
    there = {path.name for path in patches.iterdir() if path.name not in ("series", "README.md")}
    found = [f"series: lists {name} twice" for name in sorted({n for n in listed if listed.count(n) > 1})]
    found += [f"series: {name} is missing" for name in sorted(set(listed) - there)]
    found += [f"{name}: not in series" for name in sorted(there - set(listed))]
    for name in sorted(there):
        if not _NAME.fullmatch(name):
            found.append(f"{name}: not a slug such as optional-wandb.patch")
        found += [f"{name}: {fault}" for fault in _faults((patches / name).read_text(encoding="utf-8"), files)]
    return found


def _faults(text: str, upstream: Collection[str] | None) -> Iterator[str]:
    header, mark, body = text.partition("diff --git ")
    changed = _parse(mark + body)
    if not changed:
        yield "changes nothing"
    yield from _header_faults(header, changed)
    count = 0
    for file in changed:
        if (file.old, file.new) != (f"a/{file.old[2:]}", f"b/{file.old[2:]}"):
            yield f"{file.old} and {file.new} are not a/PATH and b/PATH of one path"
        expected = [f"--- {file.old}", f"+++ {file.new}"]
        if [line for line in file.head if not line.startswith("index ")] != expected:
            yield f"{file.new[2:]}: adds, removes, renames or changes the mode of a file"
        if upstream is not None and file.old[2:] not in upstream:
            yield f"{file.old[2:]}: no such file in EDM at the pinned commit"
        for hunk in file.hunks:
            yield from (f"{file.new[2:]}: {fault}" for fault in _hunk_faults(hunk))
            count += sum(line[:1] in ("+", "-") for line in hunk[1:])
    if count > MAX_CHANGED_LINES:
        yield f"{count} changed lines, over {MAX_CHANGED_LINES}: split it, or move logic into the plugin"


def _header_faults(header: str, changed: list[_File]) -> Iterator[str]:
    lines = header.splitlines()
    if not lines or not lines[0].strip() or not lines[0].rstrip().endswith("."):
        yield "the first line is not a sentence that says what the patch does"
    named: set[str] = set()
    for paragraph in re.split(r"\n\s*\n", header):
        start = re.search(r"^Upstream:", paragraph, re.MULTILINE)
        if start:
            named |= set(_UPSTREAM.findall(paragraph[start.end() :]))
    if not named:
        yield "the header has no line `Upstream: path:lines`"
        return
    for path in sorted({file.old[2:] for file in changed} ^ named):
        yield f"{path}: in the header's Upstream line or in the diff, not in both"


def _hunk_faults(hunk: list[str]) -> Iterator[str]:
    sizes = _HUNK.match(hunk[0])
    kinds = "".join(line[:1] or " " for line in hunk[1:])
    kept = [len(run) for run in re.split(r"[+-]+", kinds)]
    if sizes is None or "\\" in kinds:
        yield f"malformed hunk {hunk[0]!r}"
        return
    old, new = (int(size) if size else 1 for size in sizes.groups())
    if (old, new) != (kinds.count(" ") + kinds.count("-"), kinds.count(" ") + kinds.count("+")):
        yield f"{hunk[0]!r} does not count its lines"
    # Between two changes of one hunk git keeps the context of both.
    limits = [MAX_CONTEXT, *[2 * MAX_CONTEXT] * (len(kept) - 2), MAX_CONTEXT]
    if any(size > limit for size, limit in zip(kept, limits, strict=False)):
        yield f"more than {MAX_CONTEXT} line of context: make it with git diff -U{MAX_CONTEXT}"
    for line in hunk[1:]:
        if not line.startswith("+"):
            continue
        if line != line.rstrip():
            yield f"adds trailing whitespace: {line!r}"
        found = _IMPORT.match(line[1:])
        if found and (found["rest"], found["names"]) != ("", "hooks") and found["rest"] != ".hooks":
            yield f"imports more of ours than hooks: {line[1:].strip()}"


def _parse(text: str) -> list[_File]:
    files: list[_File] = []
    for line in text.splitlines():
        start = re.fullmatch(r"diff --git (\S+) (\S+)", line)
        if start:
            files.append(_File(start[1], start[2]))
        elif line.startswith("@@ "):
            files[-1].hunks.append([line])
        elif files and files[-1].hunks:
            files[-1].hunks[-1].append(line)
        elif files:
            files[-1].head.append(line)
    return files

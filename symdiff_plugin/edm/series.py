"""The patch series as a whole: whether it is applied, applying it, taking it away.

What the tree should hold is computed first, in a scratch index, from the pinned commit alone; then every
tracked file is compared with it. A file holds the pinned text, the patched one, or one that an earlier
version of the series gave it (EDM's git directory keeps a record); any other is an edit, and nothing is
touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from symdiff_plugin.edm import Edm, EdmError
from symdiff_plugin.edm.checkout import LEFT_OUT, locked, require_pinned
from symdiff_plugin.edm.git import GitError, git

_RECORD = "symdiff-series.json"


class State(Enum):
    """How the tracked files of the checkout stand to the series."""

    NOT_APPLIED = "not applied"
    APPLIED = "applied"
    OUTDATED = "half applied, or applied in an earlier version"
    EDITED = "edited"


@dataclass(frozen=True)
class Status:
    """The state, and of an edited tree the first file that differs, with what is the matter."""

    state: State
    detail: str = ""


@dataclass(frozen=True)
class _Trees:
    """Names of git blobs by path: the pinned commit's, the patched ones, and our earlier ones."""

    pinned: dict[str, str]
    patched: dict[str, str]
    earlier: dict[str, list[str]]
    contents: dict[str, bytes]


def read_series(patches: Path) -> list[Path]:
    """The files that ``patches/series`` lists, in its order; blank lines and ``#`` comments are skipped.

    Raises:
        EdmError: the series or one of its patches is missing.
    """
    series = patches / "series"
    try:
        lines = series.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise EdmError(f"{series} is missing: restore it with `git checkout -- patches`") from None
    names = [entry.strip() for entry in lines if entry.strip() and not entry.lstrip().startswith("#")]
    for name in names:
        if not (patches / name).is_file():
            raise EdmError(f"{series} lists {name}, which is missing: restore it with `git checkout -- patches`")
    return [patches / name for name in names]


def status(edm: Edm | None = None) -> Status:
    """Whether the series is applied; changes nothing.

    Raises:
        EdmError: EDM is missing or at another commit, or a patch does not apply to it.
    """
    edm = edm or Edm()
    require_pinned(edm)
    return _judge(edm, _compute(edm))


def apply(edm: Edm | None = None) -> str:
    """Apply the whole series and say in one line what was done; nothing is done where it is applied.

    Raises:
        EdmError: EDM is missing, at another commit or edited, or a patch does not apply.
    """
    edm = edm or Edm()
    require_pinned(edm)
    with locked(edm):
        trees = _compute(edm)
        before = _refuse_edits(edm, _judge(edm, trees))
        if before is State.APPLIED:
            return f"the patches are applied in {edm.shown}"
        _write(edm, trees, trees.patched)
        _record(edm, {path: [name] for path, name in trees.patched.items() if name != trees.pinned[path]})
    again = ", replacing an earlier state" if before is State.OUTDATED else ""
    return f"applied our patches ({len(read_series(edm.patches))}) to {edm.shown}{again}"


def unapply(edm: Edm | None = None) -> str:
    """Take the whole series away and say in one line what was done; nothing is done where it is not applied.

    Raises:
        EdmError: EDM is missing, at another commit or edited, or a patch does not apply.
    """
    edm = edm or Edm()
    require_pinned(edm)
    with locked(edm):
        trees = _compute(edm)
        if _refuse_edits(edm, _judge(edm, trees)) is State.NOT_APPLIED:
            return f"the patches are not applied in {edm.shown}"
        _write(edm, trees, trees.pinned)
        _record(edm, {})
    return f"took the patches away from {edm.shown}"


def _compute(edm: Edm) -> _Trees:
    patches = read_series(edm.patches)
    directory = edm.directory
    objects = directory / git("rev-parse", "--git-path", "objects", cwd=directory).decode().strip()
    quoted = str(objects.resolve()).replace("\\", "\\\\").replace('"', '\\"')
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "objects").mkdir()
        env = {
            "GIT_INDEX_FILE": str(Path(scratch, "index")),
            "GIT_OBJECT_DIRECTORY": str(Path(scratch, "objects")),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{quoted}"',
        }
        git("read-tree", edm.sha, cwd=directory, env=env)
        pinned = _index(directory, env)
        for patch in patches:
            try:
                git("apply", "--cached", "--", patch.resolve(), cwd=directory, env=env)
            except GitError as error:
                raise EdmError(
                    f"{patch.name} does not apply to EDM at {edm.sha[:7]} ({error.reason}): "
                    "restore our patches with `git checkout -- patches`"
                ) from None
        patched = _index(directory, env)
        if patched.keys() != pinned.keys():
            path = min(patched.keys() ^ pinned.keys())
            raise EdmError(f"the patches add or remove {path}: they may only change files of EDM")
        contents = {
            name: git("cat-file", "blob", name, cwd=directory, env=env)
            for path in pinned
            if patched[path] != pinned[path]
            for name in (pinned[path], patched[path])
        }
    # A file that an earlier version of the series changed, and this one does not, has to be restored.
    earlier = _read_record(edm)
    for path in earlier.keys() & pinned.keys():
        if pinned[path] not in contents:
            contents[pinned[path]] = git("cat-file", "blob", pinned[path], cwd=directory)
    return _Trees(pinned, patched, earlier, contents)


def _index(directory: Path, env: dict[str, str]) -> dict[str, str]:
    entries = git("ls-files", "--stage", "-z", cwd=directory, env=env).decode().split("\0")
    names = {}
    for entry in filter(None, entries):
        about, path = entry.split("\t", 1)
        if not path.startswith(LEFT_OUT):
            names[path] = about.split()[1]
    return names


def _blob_names(file: Path) -> set[str]:
    data = file.read_bytes()
    # A clone made with core.autocrlf holds the same text with other line endings.
    forms = {data, data.replace(b"\r\n", b"\n")}
    return {hashlib.sha1(b"blob %d\0" % len(form) + form, usedforsecurity=False).hexdigest() for form in forms}


def _judge(edm: Edm, trees: _Trees) -> Status:
    pinned = patched = True
    for path in sorted(trees.pinned):
        file = edm.directory / path
        if not file.is_file():
            return Status(State.EDITED, f"{path} is missing")
        names = _blob_names(file)
        is_pinned, is_patched = trees.pinned[path] in names, trees.patched[path] in names
        if not (is_pinned or is_patched or names & set(trees.earlier.get(path, []))):
            return Status(State.EDITED, f"{path} differs from EDM at {edm.sha[:7]}, with and without our patches")
        pinned, patched = pinned and is_pinned, patched and is_patched
    # An empty series is applied by definition.
    return Status(State.APPLIED if patched else State.NOT_APPLIED if pinned else State.OUTDATED)


def _refuse_edits(edm: Edm, found: Status) -> State:
    if found.state is State.EDITED:
        raise EdmError(
            f"{edm.shown} is edited: {found.detail}; keep your changes with `git -C {edm.shown} diff > my.patch`, "
            f"undo them with `git -C {edm.shown} checkout -- .`, and run again"
        )
    return found.state


def _write(edm: Edm, trees: _Trees, wanted: dict[str, str]) -> None:
    """Bring the files that differ from ``wanted`` to it: all written beside their places, then all renamed."""
    changed = [path for path, name in wanted.items() if name in trees.contents]
    changed = [path for path in changed if wanted[path] not in _blob_names(edm.directory / path)]
    # Were we killed between two renames, both versions of every file are known.
    ours = {path: [*trees.earlier.get(path, []), trees.patched[path]] for path in changed}
    _record(edm, trees.earlier | ours)
    temporaries: list[tuple[Path, Path]] = []
    try:
        for path in changed:
            file = edm.directory / path
            temporary = file.with_name(f".{file.name}.symdiff-partial")
            temporaries.append((temporary, file))
            _write_synced(temporary, trees.contents[wanted[path]])
            temporary.chmod(file.stat().st_mode & 0o7777)
        for temporary, file in temporaries:
            temporary.replace(file)
    finally:
        for temporary, _ in temporaries:
            temporary.unlink(missing_ok=True)


def _write_synced(file: Path, data: bytes) -> None:
    with file.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _record_file(edm: Edm) -> Path:
    return Path(git("rev-parse", "--absolute-git-dir", cwd=edm.directory).decode().strip()) / _RECORD


def _read_record(edm: Edm) -> dict[str, list[str]]:
    """The blobs that we wrote, by path; a record that cannot be read counts as none."""
    try:
        found = json.loads(_record_file(edm).read_text(encoding="utf-8"))
        return {str(path): [str(name) for name in names] for path, names in found["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _record(edm: Edm, files: dict[str, list[str]]) -> None:
    record = _record_file(edm)
    if not files:
        record.unlink(missing_ok=True)
        return
    temporary = record.with_name(record.name + ".partial")
    _write_synced(temporary, json.dumps({"sha": edm.sha, "files": files}, indent=1).encode())
    temporary.replace(record)

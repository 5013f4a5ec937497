"""The patch series as a whole: whether it is applied, applying it, taking it away.

It is applied by one `git apply` of all patches in a row. A stamp in EDM's git directory says what was applied: the hash
of the series, the pinned commit, and the git blob of every file that the patches changed. A file that holds neither
that nor the pinned text is an edit, and nothing is touched.
"""

from __future__ import annotations

import hashlib
import re
from enum import Enum
from pathlib import Path
from typing import Any

from symdiff_plugin.common.files import read_json, write_json
from symdiff_plugin.edm import Edm, EdmError
from symdiff_plugin.edm.checkout import locked, require_pinned
from symdiff_plugin.edm.git import GitError, git


class State(Enum):
    """How the tracked files of the checkout stand to the series."""

    NOT_APPLIED = "not applied"
    APPLIED = "applied"
    OUTDATED = "half applied, or applied in an earlier version"
    EDITED = "edited"


def read_series(patches: Path) -> list[bytes]:
    """The patches that ``patches/series`` lists, in its order; blank lines and ``#`` comments are skipped.

    Raises:
        EdmError: the series or one of its patches is missing.
    """
    try:
        lines = (patches / "series").read_text(encoding="utf-8").splitlines()
        return [(patches / name).read_bytes() for name in map(str.strip, lines) if name and not name.startswith("#")]
    except FileNotFoundError as error:
        raise EdmError(f"{error.filename} is missing: restore it with `git checkout -- patches`") from None


def status(edm: Edm) -> tuple[State, str]:
    """Whether the series is applied, and what is the matter with an edited tree; no file is changed.

    Raises:
        EdmError: EDM is missing or at another commit, or a patch is missing.
    """
    require_pinned(edm)
    changed, stamp = _changed(edm), _read_stamp(edm)
    for path, blob in changed.items():
        ours = stamp["files"].get(path)
        if ours is None or (ours and blob not in ours):
            return State.EDITED, f"{path} differs from EDM at {edm.sha[:7]}, with and without our patches"
    wanted = {"series": _hash(read_series(edm.patches)), "sha": edm.sha, "files": {p: [b] for p, b in changed.items()}}
    if stamp == wanted:
        return State.APPLIED, ""
    return (State.OUTDATED if changed else State.NOT_APPLIED), ""


def apply(edm: Edm) -> str:
    """Apply the whole series and say in one line what was done; nothing is done where it is applied.

    Raises:
        EdmError: EDM is missing, at another commit or edited, or the series does not apply; EDM is then unpatched.
    """
    with locked(edm):
        before = _refuse_edits(edm)
        if before is State.APPLIED:
            return f"the patches are applied in {edm.shown}"
        patches = read_series(edm.patches)
        text = b"\n".join(patches)
        _restore(edm, *re.findall(r"^\+\+\+ b/(.*)$", text.decode(), re.MULTILINE))
        try:
            git("apply", "-", cwd=edm.directory, data=text)
        except GitError as error:
            _restore(edm)
            raise EdmError(
                f"cannot apply our patches to EDM at {edm.sha[:7]} ({error}); where they were edited, restore "
                "them with `git checkout -- patches`"
            ) from None
        _write_stamp(edm, {path: [blob] for path, blob in _changed(edm).items()}, _hash(patches))
    again = ", replacing an earlier state" if before is State.OUTDATED else ""
    return f"applied our patches ({len(patches)}) to {edm.shown}{again}"


def unapply(edm: Edm) -> str:
    """Take the whole series away and say in one line what was done; nothing is done where it is not applied.

    Raises:
        EdmError: EDM is missing, at another commit or edited.
    """
    with locked(edm):
        if _refuse_edits(edm) is State.NOT_APPLIED:
            return f"the patches are not applied in {edm.shown}"
        _restore(edm)
    return f"took the patches away from {edm.shown}"


def _refuse_edits(edm: Edm) -> State:
    state, detail = status(edm)
    if state is State.EDITED:
        raise EdmError(
            f"{edm.shown} is edited: {detail}; keep your changes with `git -C {edm.shown} diff > my.patch`, "
            f"undo them with `git -C {edm.shown} checkout -- .`, and run again"
        )
    return state


def _restore(edm: Edm, *next_ones: str) -> None:
    """Bring back the pinned files, and note that whatever the ``next_ones`` hold until the next stamp is ours."""
    changed = _changed(edm)
    _write_stamp(edm, {path: [] for path in sorted({*changed, *next_ones})}, None)
    if changed:
        git("checkout", "--quiet", "--force", edm.sha, "--", *changed, cwd=edm.directory)
    if not next_ones:
        _write_stamp(edm, {}, None)


def _changed(edm: Edm) -> dict[str, str]:
    """The tracked files that differ from the pinned commit, and the blobs that they would be (zeros: missing)."""
    text = git("diff-index", "-p", "--full-index", "--no-renames", "--no-ext-diff", edm.sha, cwd=edm.directory)
    found = re.findall(r"^diff --git a/(.+) b/\1\n(?:.* mode .*\n)*index \w+\.\.(\w+)", text.decode(), re.MULTILINE)
    return dict(found)


def _hash(series: list[bytes]) -> str:
    return hashlib.sha256(b"\0".join(series)).hexdigest()


def _stamp_file(edm: Edm) -> Path:
    return Path(git("rev-parse", "--absolute-git-dir", cwd=edm.directory).decode().strip(), "symdiff-series.json")


def _read_stamp(edm: Edm) -> dict[str, Any]:
    try:
        stamp = read_json(_stamp_file(edm))
        return {**stamp, "files": {path: list(blobs) for path, blobs in stamp["files"].items()}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # a stamp that is missing or damaged is none
        return {"files": {}}


def _write_stamp(edm: Edm, files: dict[str, list[str]], series: str | None) -> None:
    write_json(_stamp_file(edm), {"series": series, "sha": edm.sha, "files": files})

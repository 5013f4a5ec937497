"""Getting EDM: the pinned commit, sparse, as a repository of its own where our submodule is.

It is put together in a folder beside its place and renamed into it at the end, so that a failure leaves nothing behind.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from symdiff_plugin.common.files import replacing
from symdiff_plugin.edm import Edm, EdmError
from symdiff_plugin.edm.git import GitError, git, line

GEOM_PERMUTATION = "data/geom/geom_permutation.npy"
# Over 100 MB of pretrained weights and samples that nothing of ours reads.
LEFT_OUT = ("outputs/", "generated_samples/", GEOM_PERMUTATION)
# Lets a local repository serve a partial clone whatever its own settings, so that one without the large files
# will do. For other servers the setting is theirs.
_LOCAL_SERVER = "git -c uploadpack.allowFilter=true -c uploadpack.allowAnySHA1InWant=true upload-pack"
_REMEDY = "set EDM_REPO to the path or URL of any clone or mirror of EDM"


@contextmanager
def locked(edm: Edm) -> Iterator[None]:
    """Let one process at a time change the checkout; the lock goes with the process."""
    edm.directory.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(edm.directory.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks: go on without
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def is_missing(edm: Edm) -> bool:
    """Whether the folder of EDM is absent, or empty as our submodule's is after a clone."""
    return not edm.directory.exists() or not any(edm.directory.iterdir())


def require_pinned(edm: Edm) -> None:
    """Refuse a folder that is not EDM at the pinned commit.

    Raises:
        EdmError: missing, not a git checkout of its own, or at another commit.
    """
    if is_missing(edm):
        raise EdmError(f"EDM is not in {edm.shown}: get it with `python -m symdiff_plugin.edm get`", exit_status=1)
    top = line("rev-parse", "--show-toplevel", cwd=edm.directory)
    if top is None or Path(top).resolve() != edm.directory.resolve():
        raise EdmError(
            f"{edm.shown} is not a git checkout of EDM: move it away, then `python -m symdiff_plugin.edm get`"
        )
    head = line("rev-parse", "HEAD", cwd=edm.directory) or "none"
    if head != edm.sha:
        raise EdmError(
            f"EDM in {edm.shown} is at commit {head[:7]}, our patches are for {edm.sha[:7]}: "
            f"run `git -C {edm.shown} checkout {edm.sha}`, or move the folder away and get EDM again"
        )


def get(edm: Edm, source: str | None = None, geom: bool = False) -> str:
    """Make the pinned checkout of EDM be there, and say in one line what was done.

    Args:
        source: path or URL of any clone or mirror; EDM's own where it is None or empty.
        geom: also fetch the 55 MB permutation that fixes the splits of GEOM-Drugs.

    Raises:
        EdmError: EDM cannot be had, or what is in its folder is something else; nothing was changed.
        OSError: a file cannot be written.
    """
    with locked(edm):
        if missing := is_missing(edm):
            _build(edm, source)
        require_pinned(edm)
        line("submodule", "--quiet", "init", "--", edm.directory.name, cwd=edm.directory.parent)  # where it is ours
        if geom:
            _get_permutation(edm)
    return f"{'got EDM at' if missing else 'EDM is at'} {edm.sha[:7]} in {edm.shown}"


def _build(edm: Edm, source: str | None) -> None:
    path = Path(source or "").expanduser()
    # Our git commands run in other folders, so a relative path must not stay one.
    url = str(path.resolve()) if source and path.exists() else source or edm.url
    parent, partial = edm.directory.parent, edm.directory.with_name(f".{edm.directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # we hold the lock, so whoever made it was killed
    print(f"getting EDM from {url}", file=sys.stderr)
    # What git makes of the URL after the user's url.*.insteadOf settings.
    actual = git("ls-remote", "--get-url", "--", url, cwd=parent).decode().strip()
    is_local = re.match(r"[a-z+]+://|[^/]+:", actual) is None or actual.startswith("file://")
    try:
        git("ls-remote", "--heads", "--", url, cwd=parent, timeout=40)  # fails soon where nobody answers
        options = ["--filter=blob:none", *(["--no-local", "--upload-pack", _LOCAL_SERVER] if is_local else [])]
        # git loops for minutes over a partial clone of a shallow one, which is small as it is.
        shallow = ("-C", actual.removeprefix("file://"), "rev-parse", "--is-shallow-repository")
        if is_local and line(*shallow, cwd=parent) == "true":
            options = ["--no-local"]
        git("clone", "--no-checkout", "--no-tags", *options, "--", url, partial, cwd=parent)
        for setting, value in (("autocrlf", "false"), ("sparseCheckout", "true"), ("sparseCheckoutCone", "false")):
            git("config", f"core.{setting}", value, cwd=partial)
        (partial / ".git/info").mkdir(exist_ok=True)
        (partial / ".git/info/sparse-checkout").write_text("/*\n" + "".join(f"!/{path}\n" for path in LEFT_OUT))
        git("checkout", "--force", "--detach", edm.sha, cwd=partial)
        partial.rename(edm.directory)  # in an empty folder's place, too
    except GitError as error:
        said = f"cannot get EDM from {url} ({error}): {_REMEDY}"
        if source and is_local:
            raise EdmError(f"EDM_REPO: {said}, or unset it") from None
        raise EdmError(f"{said}, or try again with a network", exit_status=1) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _get_permutation(edm: Edm) -> None:
    target = edm.directory / GEOM_PERMUTATION
    if target.is_file():
        return
    print(f"getting {GEOM_PERMUTATION} (55 MB)", file=sys.stderr)
    try:
        data = git("cat-file", "blob", f"{edm.sha}:{GEOM_PERMUTATION}", cwd=edm.directory)
    except GitError as error:
        raise EdmError(
            f"cannot get {GEOM_PERMUTATION} from where EDM came from ({error}): some mirrors lack it; "
            f"take it from EDM's GitHub repository and put it at {edm.shown}/{GEOM_PERMUTATION}",
            exit_status=1,
        ) from None
    with replacing(target, "wb") as file:
        file.write(data)
    # Otherwise git would take the file for one that it should remove.
    sparse = Path(git("rev-parse", "--absolute-git-dir", cwd=edm.directory).decode().strip(), "info/sparse-checkout")
    if sparse.is_file():
        sparse.write_text(sparse.read_text().replace(f"!/{GEOM_PERMUTATION}\n", ""))
    git("update-index", "--no-skip-worktree", GEOM_PERMUTATION, cwd=edm.directory)

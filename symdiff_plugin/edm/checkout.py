"""Getting EDM: the pinned commit, sparse, as a submodule of ours or as a plain checkout.

A new checkout is put together in a temporary folder beside its place and renamed into it at the end, so a
failure on the way leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from symdiff_plugin.edm import EDM_FOLDER, Edm, EdmError
from symdiff_plugin.edm.git import GitError, git, line, probe

try:
    import fcntl
except ImportError:  # no advisory locks on this system
    fcntl = None  # type: ignore[assignment]

GEOM_PERMUTATION = "data/geom/geom_permutation.npy"
# Over 100 MB of pretrained weights and samples that nothing of ours reads.
LEFT_OUT = ("outputs/", "generated_samples/", GEOM_PERMUTATION)
# Lets a local repository serve a partial clone whatever its own settings, so that one without the large files
# will do. For other servers the setting is theirs.
_LOCAL_SERVER = "git -c uploadpack.allowFilter=true -c uploadpack.allowAnySHA1InWant=true upload-pack"
_REMEDY = "set EDM_REPO to the path or URL of any clone or mirror of EDM"


@contextmanager
def locked(edm: Edm) -> Iterator[None]:
    """Let one process at a time change the checkout; the lock goes with the process.

    Raises:
        EdmError: a file could not be written.
    """
    handle = None
    try:
        handle = os.open(edm.root, os.O_RDONLY)
        if fcntl is not None:
            with suppress(OSError):  # some network file systems have no locks: go on without
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    except OSError as error:
        what = "no space left on the disk" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise EdmError(f"{error.filename or edm.shown}: {what}", exit_status=1) from error
    finally:
        if handle is not None:
            os.close(handle)


def is_missing(edm: Edm) -> bool:
    """Whether the folder of EDM is absent or empty (a submodule's ``.git`` file alone counts as empty)."""
    directory = edm.directory
    if directory.exists() and not directory.is_dir():
        raise EdmError(f"{edm.shown} is a file, where EDM's folder should be: move it away and run again")
    empty = not directory.exists() or all(entry.name == ".git" and entry.is_file() for entry in directory.iterdir())
    if empty and directory.is_symlink():
        raise EdmError(f"{edm.shown} is a link to nothing: remove it and run again")
    return empty


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


def get(edm: Edm | None = None, source: str | None = None, geom: bool = False) -> str:
    """Make the pinned checkout of EDM be there, and say in one line what was done.

    Args:
        source: path or URL of any clone or mirror; the URL in ``.gitmodules`` where it is None or empty.
        geom: also fetch the 55 MB permutation that fixes the splits of GEOM-Drugs.

    Raises:
        EdmError: EDM cannot be had, or what is in its folder is something else; nothing was changed.
    """
    edm = edm or Edm()
    with locked(edm):
        if is_missing(edm):
            _build(edm, source)
            said = f"got EDM at {edm.sha[:7]} in {edm.shown}"
        else:
            require_pinned(edm)
            said = f"EDM is in {edm.shown} at {edm.sha[:7]}"
        _register(edm)
        if geom:
            _get_permutation(edm)
    return said


def _git_directory(edm: Edm) -> Path | None:
    """Where git keeps the submodule's repository; None where our root is no git work tree of its own."""
    top = line("rev-parse", "--show-toplevel", cwd=edm.root)
    if top is None or Path(top).resolve() != edm.root.resolve():
        return None
    listed = line("ls-files", "--stage", "--", EDM_FOLDER, cwd=edm.root)
    if not listed or not listed.startswith("160000"):
        return None
    where = line("rev-parse", "--git-path", f"modules/{EDM_FOLDER}", cwd=edm.root)
    return edm.root / where if where else None


def _url(edm: Edm, source: str | None) -> str:
    if source:
        # Our git commands run in other folders, so a relative path must not stay one.
        path = Path(source).expanduser()
        return str(path.resolve()) if path.exists() else source
    url = line("config", "--file", edm.root / ".gitmodules", f"submodule.{EDM_FOLDER}.url", cwd=edm.root)
    if not url:
        raise EdmError(f"{edm.root / '.gitmodules'} does not say where EDM is: restore it, or set EDM_REPO")
    return url


def _build(edm: Edm, source: str | None) -> None:
    temporary = edm.root / f".{EDM_FOLDER}.partial"
    if temporary.exists():  # we hold the lock, so whoever made it was killed
        shutil.rmtree(temporary)
    kept = _git_directory(edm)
    try:
        if kept is not None and kept.exists():
            _reuse(edm, kept, temporary, source)
        else:
            _clone(edm, temporary, source)
        if edm.directory.exists():
            (edm.directory / ".git").unlink(missing_ok=True)
            edm.directory.rmdir()
        temporary.rename(edm.directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _clone(edm: Edm, worktree: Path, source: str | None) -> None:
    url = _url(edm, source)
    print(f"getting EDM from {url}", file=sys.stderr)
    # What git makes of the URL after the user's url.*.insteadOf settings.
    actual = git("ls-remote", "--get-url", "--", url, cwd=edm.root).decode().strip()
    remote = re.match(r"[a-z+]+://|[^/]+:", actual) is not None and not actual.startswith("file://")
    options = ["--filter=blob:none"]
    if not remote:
        options += ["--no-local", "--upload-pack", _LOCAL_SERVER]
        path = Path(actual.removeprefix("file://"))
        # git loops for minutes over a partial clone of a shallow one, which is small as it is.
        if path.is_dir() and line("rev-parse", "--is-shallow-repository", cwd=path) == "true":
            options = ["--no-local"]
    try:
        probe(url, cwd=edm.root)
        git("clone", "--no-checkout", "--no-tags", *options, "--", url, worktree, cwd=edm.root, progress=True)
        _require_commit(edm, worktree / ".git", worktree, source)
        _populate(edm, worktree / ".git", worktree)
    except GitError as error:
        if source and not remote:
            raise EdmError(f"EDM_REPO: cannot get EDM from {url} ({error.reason}): {_REMEDY}, or unset it") from None
        raise EdmError(
            f"cannot get EDM from {url} ({error.reason}): {_REMEDY}, or try again with a network", exit_status=1
        ) from None


def _reuse(edm: Edm, kept: Path, worktree: Path, source: str | None) -> None:
    """Check out again from the repository that git kept when the folder was emptied."""
    worktree.mkdir()
    try:
        git("rev-parse", "--git-dir", cwd=edm.root, env=_places(kept, worktree))
        _require_commit(edm, kept, worktree, source)
        _populate(edm, kept, worktree)
    except GitError as error:
        raise EdmError(
            f"the submodule's repository {os.path.relpath(kept, edm.root)} is unusable ({error.reason}): "
            "remove that folder and run again",
            exit_status=2,
        ) from None
    (worktree / ".git").write_text(f"gitdir: {os.path.relpath(kept, edm.directory)}\n", encoding="utf-8")
    git("config", "--file", kept / "config", "core.worktree", os.path.relpath(edm.directory, kept), cwd=edm.root)


def _places(git_directory: Path, worktree: Path) -> dict[str, str]:
    # Named both: the repository's own core.worktree is the final place, which is not there yet.
    return {"GIT_DIR": str(git_directory), "GIT_WORK_TREE": str(worktree)}


def _require_commit(edm: Edm, git_directory: Path, worktree: Path, source: str | None) -> None:
    env = _places(git_directory, worktree)
    if line("cat-file", "-e", f"{edm.sha}^{{commit}}", cwd=edm.root, env=env) is not None:
        return
    url = _url(edm, source)
    try:
        git("fetch", "--no-tags", "--", url, edm.sha, cwd=edm.root, env=env, progress=True)
        git("cat-file", "-e", f"{edm.sha}^{{commit}}", cwd=edm.root, env=env)
    except GitError:
        raise EdmError(
            f"{url} does not have EDM's commit {edm.sha[:7]}: it is another repository or an outdated mirror; "
            "set EDM_REPO to the path or URL of a complete one",
            exit_status=2 if source else 1,
        ) from None


def _populate(edm: Edm, git_directory: Path, worktree: Path) -> None:
    config = ("config", "--file", git_directory / "config")
    git(*config, "core.autocrlf", "false", cwd=edm.root)
    git(*config, "core.sparseCheckout", "true", cwd=edm.root)
    git(*config, "core.sparseCheckoutCone", "false", cwd=edm.root)
    (git_directory / "info").mkdir(exist_ok=True)
    patterns = "".join(["/*\n", *(f"!/{path}\n" for path in LEFT_OUT)])
    (git_directory / "info" / "sparse-checkout").write_text(patterns, encoding="utf-8")
    git("checkout", "--force", "--detach", edm.sha, cwd=worktree, env=_places(git_directory, worktree), progress=True)


def _register(edm: Edm) -> None:
    """Make the checkout a submodule in the eyes of git, where our root is a git work tree."""
    if _git_directory(edm) is None:
        return
    if line("config", f"submodule.{EDM_FOLDER}.url", cwd=edm.root) is None:
        git("submodule", "--quiet", "init", "--", EDM_FOLDER, cwd=edm.root)
    if (edm.directory / ".git").is_dir():
        git("submodule", "--quiet", "absorbgitdirs", EDM_FOLDER, cwd=edm.root)


def _get_permutation(edm: Edm) -> None:
    target = edm.directory / GEOM_PERMUTATION
    if target.is_file():
        return
    print(f"getting {GEOM_PERMUTATION} (55 MB)", file=sys.stderr)
    try:
        data = git("cat-file", "blob", f"{edm.sha}:{GEOM_PERMUTATION}", cwd=edm.directory)
    except GitError as error:
        raise EdmError(
            f"cannot get {GEOM_PERMUTATION} from where EDM came from ({error.reason}): some mirrors lack it; "
            f"take it from EDM's GitHub repository and put it at {edm.shown}/{GEOM_PERMUTATION}",
            exit_status=1,
        ) from None
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    # Otherwise git would take the file for one that it should remove.
    sparse = Path(git("rev-parse", "--absolute-git-dir", cwd=edm.directory).decode().strip(), "info/sparse-checkout")
    if sparse.is_file():
        kept = sparse.read_text(encoding="utf-8").replace(f"!/{GEOM_PERMUTATION}\n", "")
        sparse.write_text(kept, encoding="utf-8")
    git("update-index", "--no-skip-worktree", GEOM_PERMUTATION, cwd=edm.directory)

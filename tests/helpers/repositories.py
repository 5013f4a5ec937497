"""Small real git repositories, shaped like EDM and like ours, to try the set-up on."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from symdiff_plugin.edm import EDM_FOLDER, Edm

FILES = {
    "main_qm9.py": "".join(f"print('main', {i})\n" for i in range(40)),
    "utils.py": "def queue():\n    return []\n",
    "qm9/models.py": "def get_model():\n    return None\n",
    "run.sh": "#!/bin/sh\n",
    "outputs/edm_qm9/weights.npy": "weights " * 5000,
    "generated_samples/samples.txt": "samples " * 5000,
    "data/geom/geom_permutation.npy": "permutation " * 5000,
}


def git(*arguments: str | Path, cwd: Path) -> str:
    """What a git command prints; fails the test where git fails."""
    done = subprocess.run(["git", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Upstream:
    """A stand-in for EDM: ``first`` and ``pinned`` are its two commits."""

    path: Path
    first: str
    pinned: str

    def forget(self, file: str) -> None:
        """Lose the contents of a file, as mirrors without large blobs do."""
        name = git("rev-parse", f"{self.pinned}:{file}", cwd=self.path).strip()
        (self.path / ".git/objects" / name[:2] / name[2:]).unlink()


def make_upstream(path: Path) -> Upstream:
    path.mkdir()
    git("init", "--quiet", "--initial-branch=main", cwd=path)
    for name, text in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    (path / "run.sh").chmod(0o755)
    git("add", ".", cwd=path)
    git("commit", "--quiet", "-m", "first", cwd=path)
    first = git("rev-parse", "HEAD", cwd=path).strip()
    (path / "README.md").write_text("stand-in\n")
    git("add", ".", cwd=path)
    git("commit", "--quiet", "-m", "second", cwd=path)
    return Upstream(path, first, git("rev-parse", "HEAD", cwd=path).strip())


def make_root(root: Path, upstream: Upstream, work_tree: bool = True) -> Edm:
    """A repository like ours with the stand-in as its submodule; a plain folder with ``work_tree=False``."""
    edm = Edm(root / EDM_FOLDER, upstream.pinned, root / "patches", str(upstream.path))
    edm.directory.mkdir(parents=True)
    edm.patches.mkdir()
    (edm.patches / "series").write_text("")
    (root / ".gitmodules").write_text(
        f'[submodule "{EDM_FOLDER}"]\n\tpath = {EDM_FOLDER}\n\turl = {upstream.path}\n\tignore = dirty\n'
    )
    if work_tree:
        git("init", "--quiet", "--initial-branch=main", cwd=root)
        git("add", ".gitmodules", "patches", cwd=root)
        git("update-index", "--add", "--cacheinfo", f"160000,{upstream.pinned},{EDM_FOLDER}", cwd=root)
        git("commit", "--quiet", "-m", "ours", cwd=root)
    return edm


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path under a folder with its bytes (None for folders), git's own files left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if ".git" not in path.relative_to(folder).parts
    }


def write_patches(edm: Edm, *edits: tuple[str, str, str]) -> None:
    """Make a series of one patch an edit, ``(file, old text, new text)``, with git from a copy of the checkout."""
    copy = edm.directory.parent.with_name("patching")
    shutil.rmtree(copy, ignore_errors=True)
    git("clone", "--quiet", edm.url, copy, cwd=edm.patches)
    git("checkout", "--quiet", edm.sha, cwd=copy)
    for number, (file, old, new) in enumerate(edits):
        text = (copy / file).read_text()
        assert old in text
        (copy / file).write_text(text.replace(old, new))
        header = f"Change {file}.\n\nUpstream: {file}:1\n\n"
        (edm.patches / f"patch-{number}.patch").write_text(header + git("diff", "-U1", cwd=copy))
        git("commit", "--quiet", "-a", "-m", "patch", cwd=copy)
    (edm.patches / "series").write_text("# ours\n\n" + "".join(f"patch-{n}.patch\n" for n in range(len(edits))))

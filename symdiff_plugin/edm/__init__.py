"""EDM's official repository (Hoogeboom et al. 2022), pinned and patched.

Everything here needs the standard library alone, so that ``python -m symdiff_plugin.edm`` works before anything is
installed. :mod:`~symdiff_plugin.edm.checkout` gets EDM, :mod:`~symdiff_plugin.edm.series` applies and removes our
patches. Code that uses EDM's modules starts with :func:`import_edm`.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

EDM_URL = "https://github.com/ehoogeboom/e3_diffusion_for_molecules"
PINNED_SHA = "fce07d701a2d2340f3522df588832c2c0f7e044a"
EDM_FOLDER = "e3_diffusion_for_molecules"
REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
IN_CLONE = (REPOSITORY_ROOT / "patches" / "series").is_file()
PATCHES = REPOSITORY_ROOT / "patches" if IN_CLONE else Path(__file__).resolve().with_name("patches")


class EdmError(RuntimeError):
    """Something about EDM's checkout is wrong; the message is one line, with the remedy.

    ``exit_status`` is 1 where EDM cannot be had (no network, no git) and 2 where what is there, or what was asked for,
    is wrong (another commit, an edited file, an ``EDM_REPO`` that is no repository).
    """

    def __init__(self, message: str, exit_status: int = 2) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_status = exit_status


def edm_directory() -> Path:
    """Where the checkout of EDM is, or would be: ``EDM_DIR``; else in our clone or, without one, the current folder."""
    named = os.environ.get("EDM_DIR")
    return Path(named).expanduser().resolve() if named else (REPOSITORY_ROOT if IN_CLONE else Path.cwd()) / EDM_FOLDER


@dataclass(frozen=True)
class Edm:
    """A checkout of EDM (to be), the commit that it has to be at, our patches' folder, and where EDM comes from."""

    directory: Path = field(default_factory=edm_directory)
    sha: str = PINNED_SHA
    patches: Path = PATCHES
    url: str = EDM_URL

    @property
    def shown(self) -> str:
        """The directory as a user would type it."""
        relative = os.path.relpath(self.directory)
        return str(self.directory) if relative.startswith("..") else relative


def add_edm_to_path(edm: Edm | None = None) -> Path:
    """Put the patched checkout first on ``sys.path`` and return it.

    Raises:
        EdmError: EDM is missing or without our patches.
    """
    edm = edm or Edm()
    main = edm.directory / "main_qm9.py"
    if not main.is_file():
        raise EdmError(
            f"EDM is not in {edm.shown}: get it with `python -m symdiff_plugin.edm get` and "
            "`python -m symdiff_plugin.edm apply`, or set EDM_DIR to where it is",
            exit_status=1,
        )
    if "symdiff_plugin" not in main.read_text(encoding="utf-8"):
        raise EdmError(f"EDM in {edm.shown} lacks our patches: run `python -m symdiff_plugin.edm apply`")
    if str(edm.directory) not in sys.path:
        sys.path.insert(0, str(edm.directory))
    return edm.directory


def import_edm(module: str, edm: Edm | None = None) -> ModuleType:
    """Import one of EDM's modules by its name in EDM, such as ``"qm9.analyze"``.

    Raises:
        EdmError: EDM is missing or unpatched, or another module of that name was imported before.
    """
    directory = add_edm_to_path(edm)
    found = importlib.import_module(module)
    file = getattr(found, "__file__", None)
    places = [file] if file else list(getattr(found, "__path__", []))
    if not any(Path(place).resolve().is_relative_to(directory.resolve()) for place in places):
        raise EdmError(f"the module {module!r} was imported from {places}, not from EDM: rename yours")
    return found

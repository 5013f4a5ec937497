"""EDM's official repository (Hoogeboom et al. 2022) as a pinned, patched submodule.

Everything here needs the standard library alone, so that ``python -m symdiff_plugin.edm`` works with a bare
Python before anything is installed. :mod:`~symdiff_plugin.edm.checkout` gets EDM,
:mod:`~symdiff_plugin.edm.series` applies and removes our patches, :mod:`~symdiff_plugin.edm.lint` checks
them. Code that uses EDM's modules starts with :func:`import_edm`.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

PINNED_SHA = "fce07d701a2d2340f3522df588832c2c0f7e044a"
EDM_FOLDER = "e3_diffusion_for_molecules"
REPOSITORY_ROOT = Path(__file__).resolve().parents[2]


class EdmError(RuntimeError):
    """Something about EDM's checkout is wrong; the message is one line, with the remedy.

    ``exit_status`` is 1 where EDM cannot be had (no network, no git, a full disk) and 2 where what is there, or
    what was asked for, is wrong (another commit, an edited file, an ``EDM_REPO`` that is no repository).
    """

    def __init__(self, message: str, exit_status: int = 2) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_status = exit_status


@dataclass(frozen=True)
class Edm:
    """A place for EDM: ``root`` holds the folder of the checkout, ``.gitmodules`` and ``patches/``."""

    root: Path = REPOSITORY_ROOT
    sha: str = PINNED_SHA

    @property
    def directory(self) -> Path:
        return self.root / EDM_FOLDER

    @property
    def patches(self) -> Path:
        return self.root / "patches"

    @property
    def shown(self) -> str:
        """The directory as a user would type it."""
        try:
            relative = os.path.relpath(self.directory)
        except (OSError, ValueError):
            return str(self.directory)
        return str(self.directory) if relative.startswith("..") else relative


def edm_directory() -> Path:
    """Where the checkout of EDM is, or would be."""
    return Edm().directory


def add_edm_to_path(edm: Edm | None = None) -> Path:
    """Put the patched checkout first on ``sys.path`` and return it.

    Raises:
        EdmError: EDM is missing or without our patches.
    """
    edm = edm or Edm()
    main = edm.directory / "main_qm9.py"
    if not main.is_file():
        raise EdmError(
            f"EDM is not in {edm.shown}: run ./run_tests.sh, or `python -m symdiff_plugin.edm get` and "
            "`python -m symdiff_plugin.edm apply` in a clone of our repository (installed with pip install -e .)",
            exit_status=1,
        )
    if "symdiff_plugin" not in main.read_text(encoding="utf-8"):
        raise EdmError(f"EDM in {edm.shown} lacks our patches: run `python -m symdiff_plugin.edm apply`")
    path = str(edm.directory)
    if path not in sys.path:
        sys.path.insert(0, path)
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

"""Sphinx: docs/ as a site, with API pages made from the docstrings. CONTRIBUTING.md has the command."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import symdiff_plugin

project = html_title = "SymDiff for EDM"
author = "The SymDiff for EDM authors"
copyright = f"2026, {author}"
release = symdiff_plugin.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

html_theme = "furo"
highlight_language = "none"  # of blocks that name no other: commands, equations, tables
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_type_aliases = {"Kinds": "Kinds"}
napoleon_use_ivar = True
python_use_unqualified_type_names = True
# A reference to a name of ours must lead to its page; other packages, and rooms of helpers, have none here.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!symdiff_plugin\.)\S+|symdiff_plugin\.(packed|process|training|evaluate)\..*")]


def _indented_is_code(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """In the docstring of a module, what is indented is an equation, code or a table: shown as it stands."""
    if what == "module":
        lines[:] = re.sub(r"(?m)(^\S.*)\n\n(?= {4})", r"\1\n\n::\n\n", "\n".join(lines)).split("\n")


def _short_aliases(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Aliases by their name within other types, too."""
    return (re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", signature), returns) if signature else None


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _indented_is_code)
    app.connect("autodoc-process-signature", _short_aliases)

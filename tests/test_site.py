"""docs/ as a site: it builds without a warning, and has a page for every guide and every public name."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import symdiff_plugin
from symdiff_plugin import compat

DOCS = Path(__file__).resolve().parent.parent / "docs"


def build(source: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """As CONTRIBUTING.md says."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", *options, source, out]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    result = build(DOCS, out)
    assert result.returncode == 0, result.stderr
    return out


def test_every_guide_is_a_page_that_the_first_one_leads_to(site: Path) -> None:
    first = (site / "index.html").read_text(encoding="utf-8")
    for path in (*DOCS.rglob("*.md"), *DOCS.rglob("*.rst")):
        page = path.relative_to(DOCS).with_suffix(".html")
        assert (site / page).is_file()
        assert page.name == "index.html" or f'href="{page.as_posix()}"' in first


def test_every_link_between_pages_leads_to_a_place_on_them(site: Path) -> None:
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    followed, missing = 0, []
    for page, text in pages.items():
        for target, anchor in re.findall(r'(?:href|src)="(?![a-z]+:)([^"#?]*)(?:\?[^"#]*)?(?:#([^"]*))?"', text):
            path = (page.parent / target).resolve() if target else page
            followed += 1
            if not path.exists() or (anchor and path in pages and f'id="{anchor}"' not in pages[path]):
                missing.append(f"{page.name}: {target}#{anchor}")
    assert followed > 100
    assert missing == []


def test_public_names_are_described(site: Path) -> None:
    api = "".join(path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html"))
    for name in (*symdiff_plugin.__all__, *compat.__all__, "sample_haar", "gram_schmidt", "Architecture", "load_split"):
        assert re.search(rf'<dt class="sig[^>]*id="symdiff_plugin\.[\w.]*\b{name}"', api), name
    assert "no_such_name" not in api


def test_equations_of_a_module_keep_their_lines(site: Path) -> None:
    text = (site / "api" / "models.html").read_text(encoding="utf-8")
    assert re.search(
        r"<pre>[^/]*eta ~ N_U\(0, I\)\nR = R0 f_theta\(R0\^\{-1\} \. x, eta, t\)\n", re.sub(r"</?span[^>]*>", "", text)
    )


FAULTS = {
    "[nowhere](nowhere.md)": "nowhere.md",
    "[no such place](geom.md#no-such-place)": "no-such-place",
    ":::{toctree}\nnot_there\n:::": "nonexisting document 'not_there'",
    ":::{figure} no_picture.png\n:::": "no_picture.png",
    "{func}`symdiff_plugin.model.groups.no_such_function`": "symdiff_plugin.model.groups.no_such_function",
}


def test_what_is_wrong_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    for name in ("conf.py", "geom.md", "geom_smoke.png"):
        shutil.copy(DOCS / name, source / name)
    index = source / "index.md"
    index.write_text(":::{toctree}\ngeom\n:::\n\n# Title\n")
    sound = build(source, tmp_path / "sound", "-b", "dummy")
    assert (sound.returncode, sound.stderr) == (0, "")
    index.write_text(index.read_text() + "\n" + "\n\n".join(FAULTS))
    result = build(source, tmp_path / "site", "-b", "dummy")
    assert result.returncode == 1
    assert [complaint for complaint in FAULTS.values() if complaint not in result.stderr] == []
    assert result.stderr.count("WARNING") == len(FAULTS)

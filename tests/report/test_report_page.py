"""The report's page in a real browser: it renders, plotly draws, and nothing is fetched."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import matplotlib.image
import pytest
from test_report import write_run

from symdiff_plugin.report import write as writing
from symdiff_plugin.report.folders import read_runs

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=10000", "--window-size=1280,7000",
)  # fmt: skip


@pytest.fixture(scope="module")
def chromium() -> str:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        warnings.warn("NO BROWSER: the report's page is not tested; install chromium", stacklevel=1)
        pytest.skip("NO BROWSER: install chromium to test the report's page")
    return path


def visit(chromium: str, page: Path, work: Path) -> tuple[str, set[str]]:
    """The page's DOM after its scripts, and the hosts that the browser wanted to reach; a screenshot in ``work``."""
    work.mkdir()
    log = work / "net.json"
    done = subprocess.run(
        [chromium, *FLAGS, f"--user-data-dir={work / 'profile'}", f"--log-net-log={log}",
         f"--screenshot={work / 'page.png'}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, set(re.findall(r'"url":"\w+://([^/"?]+)', log.read_text()))


def own_traffic(hosts: set[str]) -> set[str]:
    """Hosts other than those a browser asks of its own accord (its maker's, for updates and the time)."""
    return {host for host in hosts if not host.endswith(("google.com", "googleapis.com", "gvt1.com"))}


def test_page_in_a_browser(chromium: str, tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="needs plotly: pip install 'symdiff-plugin[report]'")
    folder = write_run(tmp_path / "a<b>")
    runs, _ = read_runs([folder])
    writing.write_report(tmp_path / "out", runs)
    page = tmp_path / "out" / "report.html"
    dom, hosts = visit(chromium, page, tmp_path / "visit")
    assert own_traffic(hosts) == set()
    drawn = re.sub(r"(?s)<script.*?</script>", "", dom)
    assert "plot-container" in drawn
    assert "<canvas" in drawn
    assert drawn.count("<table") == 9
    assert "SymDiff (a&lt;b&gt;)</option>" in drawn
    image = matplotlib.image.imread(tmp_path / "visit" / "page.png")[..., :3]
    red = (image[..., 0] > 0.5) & (image[..., 1] < 0.35) & (image[..., 2] < 0.35)
    blank = page.read_text().replace('"bonds":', '"bonds_":').replace("Plotly.react(", "void (")
    (tmp_path / "blank.html").write_text(blank)
    visit(chromium, tmp_path / "blank.html", tmp_path / "visit_blank")  # negative control: the viewer does not draw
    undrawn = matplotlib.image.imread(tmp_path / "visit_blank" / "page.png")[..., :3]
    undrawn_red = (undrawn[..., 0] > 0.5) & (undrawn[..., 1] < 0.35) & (undrawn[..., 2] < 0.35)
    assert red.sum() > undrawn_red.sum() + 300  # water's oxygen, in the viewer besides the grid of samples


def test_a_request_would_be_seen(chromium: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<img src="https://cdn.example.org/x.png">')
    _, hosts = visit(chromium, page, tmp_path / "visit")
    assert own_traffic(hosts) == {"cdn.example.org"}


def test_page_without_plotly_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "have_plotly", lambda: False)
    runs, _ = read_runs([write_run(tmp_path / "a")])
    writing.write_report(tmp_path / "out", runs)
    html = (tmp_path / "out" / "report.html").read_text()
    assert "pip install" in html
    assert "<script" not in html
    assert json.loads((tmp_path / "out" / "report.json").read_text())["tables"]


def test_page_links_to_nothing_outside(tmp_path: Path) -> None:
    runs, _ = read_runs([write_run(tmp_path / "a")])
    writing.write_report(tmp_path / "out", runs)
    html = re.sub(r"(?s)<script.*?</script>", "", (tmp_path / "out" / "report.html").read_text())
    targets = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', html)
    links = [target[1:] for target in targets if target.startswith("#")]
    assert links[0] == "runs"
    assert {f"table-{number}" for number in range(1, 9)} <= set(links) <= set(re.findall(r'id="([^"]*)"', html))
    # Inside what is folded, so that a browser unfolds it for the link.
    assert re.findall(r'</summary>\s*<div id="table-(\d)"', html) == ["4", "7"]
    assert html.index('id="runs"') < html.index('id="plot-0"') < html.index('id="table-1"')
    assert all(target.startswith(("data:image/png;base64,", "#")) for target in targets)

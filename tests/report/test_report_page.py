"""The report's page in a real browser: it renders, molecules are drawn and turn, and nothing is fetched."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import matplotlib.image
import pytest
from report_runs import WATER, write_run

from symdiff_plugin.report import write as writing
from symdiff_plugin.report.folders import read_runs
from symdiff_plugin.report.viewer import viewer

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=3000", "--window-size=1280,7000",
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


# Put behind the page's script: what the canvas shows after each of these, and which molecule.
TURNS = """
const canvas = document.getElementById("molecule3d"), seen = [], look = () => seen.push(canvas.toDataURL());
canvas.setPointerCapture = () => {};  // no real pointer is down
const move = (kind, buttons) => canvas.dispatchEvent(new PointerEvent(kind, {buttons, movementX: 60, movementY: 20}));
const key = name => canvas.dispatchEvent(new KeyboardEvent("keydown", {key: name, cancelable: true}));
look(); move("pointermove", 0); look(); move("pointerdown", 1); move("pointermove", 1); look();
key("ArrowLeft"); look(); key("Tab"); look();
canvas.dispatchEvent(new WheelEvent("wheel", {deltaY: -200, cancelable: true})); look();
const name = () => document.getElementById("molecule").selectedOptions[0].textContent, names = [name()];
document.getElementById("next").click(); names.push(name()); look();
document.getElementById("previous").click(); names.push(name()); look();
const changed = seen.slice(1).map((shown, i) => shown !== seen[i]);
document.title = JSON.stringify({changed, again: seen[0] === seen.at(-1), names});
"""


def red(picture: Path) -> int:
    """Pixels of an oxygen's colour."""
    image = matplotlib.image.imread(picture)[..., :3]
    return int(((image[..., 0] > 0.5) & (image[..., 1:] < 0.35).all(-1)).sum())


def test_page_in_a_browser(chromium: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a<b>")
    ammonia = "4\nvalid; N\nN 0 0 0.1\nH 0 0.94 -0.3\nH 0.81 -0.47 -0.3\nH -0.81 -0.47 -0.3\n"
    (folder / "molecules.xyz").write_text(WATER + ammonia)
    runs, _ = read_runs([folder])
    writing.write_report(tmp_path / "out", runs)
    page = tmp_path / "out" / "report.html"
    dom, hosts = visit(chromium, page, tmp_path / "visit")
    assert own_traffic(hosts) == set()
    drawn = re.sub(r"(?s)<script.*?</script>", "", dom)
    assert 'aria-label="H2O, stable; the arrow keys turn it"' in drawn
    assert drawn.count("<table") == 9
    assert "SymDiff (a&lt;b&gt;)</option>" in drawn
    (tmp_path / "blank.html").write_text(page.read_text().replace("pen.fill();", ""))
    visit(chromium, tmp_path / "blank.html", tmp_path / "visit_blank")  # negative control: the viewer does not draw
    undrawn = red(tmp_path / "visit_blank" / "page.png")
    assert red(tmp_path / "visit" / "page.png") > undrawn + 300  # water's oxygen, besides the grid of samples


def test_molecules_turn_in_a_browser(chromium: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    (folder / "molecules.xyz").write_text(WATER + WATER.replace("stable", "valid").replace("O 0 0 0", "N 0 0 0"))
    runs, _ = read_runs([folder])
    (tmp_path / "page.html").write_text(f"{viewer(runs)}<script>{TURNS}</script>")
    dom, _ = visit(chromium, tmp_path / "page.html", tmp_path / "visit")
    found = json.loads(html.unescape(re.search("<title>(.*?)</title>", dom)[1]))
    # A pointer that passes by, one that drags; an arrow key, another key; the wheel; next, and back, as at first.
    assert found["changed"] == [False, True, True, False, True, True, True]
    assert found["again"]
    assert found["names"] == ["H2O, stable", "H2N, valid", "H2O, stable"]


def test_a_request_would_be_seen(chromium: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<img src="https://cdn.example.org/x.png">')
    _, hosts = visit(chromium, page, tmp_path / "visit")
    assert own_traffic(hosts) == {"cdn.example.org"}


def test_the_page_is_light(tmp_path: Path) -> None:
    runs, _ = read_runs([write_run(tmp_path / "a")])
    assert len(viewer(runs)) < 10_000  # three molecules; plotly.js has 4.8 MB
    assert viewer([]) == ""


def test_page_links_to_nothing_outside(tmp_path: Path) -> None:
    runs, _ = read_runs([write_run(tmp_path / "a")])
    writing.write_report(tmp_path / "out", runs)
    text = re.sub(r"(?s)<script.*?</script>", "", (tmp_path / "out" / "report.html").read_text())
    targets = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', text)
    links = [target[1:] for target in targets if target.startswith("#")]
    assert links[0] == "runs"
    assert {f"table-{number}" for number in range(1, 9)} <= set(links) <= set(re.findall(r'id="([^"]*)"', text))
    # Inside what is folded, so that a browser unfolds it for the link.
    assert re.findall(r'</summary>\s*<div id="table-(\d)"', text) == ["4", "7"]
    assert text.index('id="runs"') < text.index('id="plot-0"') < text.index('id="table-1"')
    assert all(target.startswith(("data:image/png;base64,", "#")) for target in targets)

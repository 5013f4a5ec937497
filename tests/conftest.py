"""Where EDM is, for the tests that need it; without it they skip, and the summary says so in capitals."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from symdiff_plugin.edm import Edm, EdmError
from symdiff_plugin.edm.checkout import require_pinned
from symdiff_plugin.edm.series import State, status

pytest_plugins = ["shared_runs"]

_NEEDS_EDM = {"edm_checkout", "edm_path"}
_NEEDED = "needs EDM: "
_skipped: list[str] = []
_reasons: set[str] = set()


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    for item in items:
        fixtures = getattr(item, "fixturenames", [])
        if _NEEDS_EDM & set(fixtures):
            item.add_marker("edm")
        elif item.get_closest_marker("edm"):
            fixtures.insert(0, "edm_path")


@pytest.fixture(scope="session")
def _edm_faults() -> tuple[str | None, str | None]:
    """What keeps the checkout from being used as it is, and as patched; judged once."""
    try:
        require_pinned(Edm())
    except EdmError as error:
        return str(error), str(error)
    try:
        state, detail = status(Edm())
    except EdmError as error:
        return None, str(error)
    if state is State.APPLIED:
        return None, None
    remedy = "put it in order with `python -m symdiff_plugin.edm apply`"
    return None, ": ".join(filter(None, (f"the patches in {Edm().shown} are {state.value}", detail, remedy)))


def _directory(fault: str | None) -> Path:
    if fault:
        pytest.skip(f"{_NEEDED}{fault}")
    return Edm().directory


@pytest.fixture(scope="session")
def edm_checkout(_edm_faults: tuple[str | None, str | None]) -> Path:
    """EDM at the pinned commit, patched or not: to be read and cloned, never written to."""
    return _directory(_edm_faults[0])


@pytest.fixture(scope="session")
def edm_path(_edm_faults: tuple[str | None, str | None]) -> Path:
    """EDM at the pinned commit with the whole series applied."""
    return _directory(_edm_faults[1])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # From the report, not from where the fixture skips: pytest-xdist's workers are other processes.
    if report.skipped and report.when == "setup" and isinstance(report.longrepr, tuple):
        _, found, reason = report.longrepr[2].partition(_NEEDED)
        if found:
            _skipped.append(report.nodeid)
            _reasons.add(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _skipped:
        return
    terminalreporter.section("EDM IS NOT READY", sep="!", red=True, bold=True)
    terminalreporter.line(f"{len(_skipped)} INTEGRATION TESTS WERE SKIPPED.", red=True, bold=True)
    for reason in sorted(_reasons):
        terminalreporter.line(f"{reason[:1].upper()}{reason[1:]}.")

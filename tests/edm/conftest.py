"""A stand-in for EDM and a root like ours, out of reach of the user's git settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from repositories import Upstream, make_root, make_upstream

from symdiff_plugin.edm import Edm


@pytest.fixture(autouse=True)
def _git_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@example.org")


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    return make_upstream(tmp_path / "upstream")


@pytest.fixture
def edm(tmp_path: Path, upstream: Upstream) -> Edm:
    """Our repository as a fresh clone leaves it: the submodule's folder is empty."""
    return make_root(tmp_path / "ours", upstream)

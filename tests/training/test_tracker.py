"""Logging without wandb, and what of wandb is used where it is there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from symdiff_plugin.training.tracker import Tracker


@pytest.fixture
def wandb_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list:
    """A package called wandb that writes down how it is called."""
    (tmp_path / "wandb.py").write_text(
        "calls = []\n"
        "def __getattr__(name):\n"
        "    if name.startswith('__'): raise AttributeError(name)\n"
        "    return lambda *args, **kwargs: calls.append((name, args, kwargs)) or name\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    yield importlib.import_module("wandb").calls
    del sys.modules["wandb"]


def everything(tracker: Tracker, mode: str) -> None:
    """The calls that EDM makes."""
    tracker.init(
        entity=None, name="run", project="e3_diffusion", config={}, settings=tracker.Settings(_disable_stats=True),
        reinit=True, mode=mode,
    )  # fmt: skip
    tracker.save("*.txt")
    tracker.log({"Batch NLL": 1.5}, commit=True)
    tracker.log({"molecule": [tracker.Image([[0.0]], caption="a.png")]})
    tracker.log({"chain": [tracker.Video("a.gif", caption="a.gif")]})


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed here")
@pytest.mark.parametrize(("mode", "lines"), [("online", 1), ("offline", 1), ("disabled", 0)])
def test_without_wandb_every_call_is_harmless(mode: str, lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    tracker, seen = Tracker(), []
    tracker.listeners.append(seen.append)
    everything(tracker, mode)
    assert len(capsys.readouterr().err.splitlines()) == lines  # said once, and only where it was wanted
    assert seen[0] == {"Batch NLL": 1.5}


def test_wandb_is_left_alone_when_disabled(wandb_calls: list) -> None:
    everything(Tracker(), "disabled")
    assert wandb_calls == []


def test_wandb_gets_every_call(wandb_calls: list) -> None:
    everything(Tracker(), "offline")
    assert [name for name, _, _ in wandb_calls] == ["init", "save", "log", "Image", "log", "Video", "log"]
    assert wandb_calls[0][2]["mode"] == "offline"
    assert "settings" not in wandb_calls[0][2]  # wandb renamed EDM's only one
    assert wandb_calls[2] == ("log", ({"Batch NLL": 1.5},), {"commit": True})
    assert wandb_calls[5][2]["format"] == "gif"


def test_wandb_gets_numbers(wandb_calls: list) -> None:
    tracker, seen = Tracker(), []
    tracker.listeners.append(seen.append)
    tracker.init(mode="offline")
    tracker.log({"Batch NLL": torch.tensor(1.5), "Validity": 0.25}, commit=True)
    assert wandb_calls[-1] == ("log", ({"Batch NLL": 1.5, "Validity": 0.25},), {"commit": True})
    assert seen == [{"Batch NLL": 1.5, "Validity": 0.25}]
    assert [type(value) for value in (*seen[0].values(), *wandb_calls[-1][1][0].values())] == [float] * 4

"""Weights that are not numbers are refused wherever weights are read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from symdiff_plugin import hooks
from symdiff_plugin.common.weights import finite, read_state_dict
from symdiff_plugin.model.dynamics import build_dynamics

ODD = [float("nan"), float("inf"), -float("inf")]


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return {"a": torch.ones(2, 3), "b": torch.arange(4.0), "steps": torch.tensor(7), "empty": torch.zeros(0)}


def test_weights_that_are_numbers_are_read_as_they_are(weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "w.npy")
    found = read_state_dict(tmp_path / "w.npy")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    assert finite(weights, "here") is weights


@pytest.mark.parametrize("odd", ODD)
def test_one_number_that_is_none_is_named(odd: float, weights, tmp_path: Path) -> None:
    weights["b"][2] = odd
    torch.save(weights, tmp_path / "w.npy")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'w.npy'} holds weights that are not finite, in b")):
        read_state_dict(tmp_path / "w.npy")


def test_edms_scripts_end_in_one_line(weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(weights, tmp_path / "w.npy")
    assert hooks.load_weights(str(tmp_path / "w.npy")).keys() == weights.keys()
    weights["a"][0, 0] = torch.nan
    torch.save(weights, tmp_path / "w.npy")
    for path, words in (("w.npy", "not finite, in a"), ("none.npy", "none.npy is damaged or holds no weights")):
        with pytest.raises(SystemExit) as stop:
            hooks.load_weights(str(tmp_path / path))
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line


def test_a_released_checkpoint_is_refused_and_the_model_left_as_it_was() -> None:
    from symdiff_plugin.compat import load_release
    from symdiff_plugin.training.released import NAMES

    ours = build_dynamics("symdiff_tiny", 6)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    back = {new: old for old, new in NAMES.items()}
    released = {}
    for name, value in before.items():
        new = max((new for new in back if name.startswith(new)), key=len)
        released[back[new] + name.removeprefix(new)] = value.clone()
    load_release(ours, released)
    released["xh_embedder.weight"][0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"not finite, in xh_embedder\.weight"):
        load_release(ours, released)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())

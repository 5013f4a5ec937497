"""Weights that are not there: why, and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from symdiff_plugin.common.errors import EvaluationError
from symdiff_plugin.training.init_from import InitError, find_initial_weights
from symdiff_plugin.training.stored_run import read_weights

LAST = "--checkpoint checkpoint.pt"


@pytest.mark.parametrize(
    ("rows", "args", "checkpoint", "says", "says_not"),
    [
        ([None], {}, True, [f"no epoch of the run has been tested yet; take those of the last epoch with {LAST}"], []),
        ([None], {}, False, ["no epoch of the run has been tested yet; train it"], [LAST, "--resume"]),
        (["nan", "nan"], {}, True, ["no validation NLL of the run was a number", "smaller --lr"], [LAST, "--resume"]),
        ([3e9], {}, False, ["or below 1e8", "smaller --lr"], [LAST]),
        ([-4.0], {}, True, ["though the run was tested: restore it", LAST, "--resume"], []),
        ([-4.0], {}, False, ["though the run was tested: restore it"], [LAST, "--resume"]),
        ([-4.0], {"save_model": False}, False, ["trained with --save_model False"], [LAST, "--resume"]),
    ],
)
def test_the_remedy_fits(
    rows: list[object], args: dict, checkpoint: bool, says: list[str], says_not: list[str], tmp_path: Path
) -> None:
    lines = [{"epoch": i} | ({} if nll is None else {"val_nll": None if nll == "nan" else nll})
             for i, nll in enumerate(rows)]  # fmt: skip
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "config.json").write_text(json.dumps({"model": "symdiff", "args": args}))
    if checkpoint:
        (tmp_path / "checkpoint.pt").touch()
    with pytest.raises(EvaluationError) as error:
        read_weights(tmp_path, "generative_model_ema.npy")
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'generative_model_ema.npy'} is missing")
    assert [word for word in says if word not in message] == []
    assert [word for word in says_not if word in message] == []
    assert "\n" not in message
    with pytest.raises(InitError, match=r"generative_model_ema\.npy is missing") as error:
        find_initial_weights(tmp_path)
    assert LAST not in str(error.value)  # --init_from does not read a checkpoint


def test_without_any_record_it_is_said_too(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no epoch of the run has been tested yet; train it"):
        read_weights(tmp_path, "generative_model.npy")

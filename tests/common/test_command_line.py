"""A value that no flag takes: one line and exit status 2, whichever command it is given to."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from symdiff_plugin import sample
from symdiff_plugin.benchmark import __main__ as benchmark
from symdiff_plugin.benchmark import curves
from symdiff_plugin.common.devices import usable_device
from symdiff_plugin.common.errors import EvaluationError
from symdiff_plugin.data import qm9
from symdiff_plugin.data.geom import __main__ as geom
from symdiff_plugin.evaluate import __main__ as evaluate

HUGE = "10000000000"


def standalone(arguments: list[str]) -> int:
    """The example's parser."""
    path = Path(__file__).parents[2] / "examples/standalone_qm9.py"
    spec = importlib.util.spec_from_file_location("standalone", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.argv[1:] = arguments
    return module.parse_arguments()


@pytest.mark.parametrize(
    ("main", "words", "flag", "value", "says"),
    [
        (evaluate.main, ["run"], "--n_samples", HUGE, "a whole number from 1 to 10000000, not 10000000000"),
        (evaluate.main, ["run"], "--n_samples", "0", "a whole number from 1"),
        (evaluate.main, ["run"], "--n_samples", "1e4", "a whole number from 1 to 10000000, not '1e4'"),
        (evaluate.main, ["run"], "--batch_size", "many", "a whole number from 1 to 2147483647, or auto, not 'many'"),
        (evaluate.main, ["run"], "--nll_molecules", "-1", "a whole number from 0 to 2147483647, or all, not -1"),
        (evaluate.main, ["run"], "--nll_draws", HUGE, "a whole number from 1 to 10000"),
        (evaluate.main, ["run"], "--runs", HUGE, "a whole number from 1 to 10000"),
        (evaluate.main, ["run"], "--seed", "-1", "a whole number from 0 to 4294967295"),
        (evaluate.main, ["run"], "--device", "meta", "cpu, cuda, cuda:N or mps, not meta"),
        (evaluate.main, ["--data", "test"], "--split_seed", "-1", "a whole number from 0"),
        (sample.main, ["--pretrained", "qm9-mini"], "--n_samples", HUGE, "a whole number from 1 to 10000000"),
        (sample.main, ["--pretrained", "qm9-mini"], "--batch_size", "0", "a whole number from 1"),
        (sample.main, ["--pretrained", "qm9-mini"], "--device", "tpu", "cpu, cuda, cuda:N or mps, not tpu"),
        (sample.main, ["--pretrained", "qm9-mini"], "--seed", str(2**32), "a whole number from 0"),
        (benchmark.main, [], "--device", "privateuseone", "cpu, cuda, cuda:N or mps"),
        (benchmark.main, [], "--molecules", HUGE, "a whole number from 1 to 1000000"),
        (benchmark.main, [], "--threads", HUGE, "a whole number from 1 to 1024"),
        (benchmark.main, [], "--rounds", "0", "a whole number from 1"),
        (curves.main, ["run"], "--window", "0", "a whole number from 1"),
        (qm9.main, ["--datadir", "x", "--slice", "4", "2", "2"], "--seed", "-1", "a whole number from 0"),
        (geom.main, ["rdkit", "--out", "x"], "--molecules", "0", "a whole number from 1"),
        (geom.main, ["rdkit", "--out", "x"], "--conformers", "-3", "a whole number from 1"),
        (geom.main, ["convert", "x"], "--conformations", "0", "a whole number from 1"),
        (standalone, [], "--n_samples", HUGE, "a whole number from 1 to 10000000"),
        (standalone, [], "--lr", "nan", "a number in (0, inf), not nan"),
    ],
)
def test_a_value_out_of_bounds_is_one_line(
    main: Callable[[list[str]], int],
    words: list[str],
    flag: str,
    value: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["prog"])
    with pytest.raises(SystemExit) as stop:
        main([*words, flag, value])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{flag} must be {says}" in line


def test_a_device_that_is_not_here_is_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    """``mps`` as ``cuda``; torch's own complaint lists every backend that there is."""
    for name in ("mps", "cuda:99"):
        with pytest.raises(EvaluationError, match=f"--device {name} cannot be used here") as error:
            usable_device(name)
        assert len(str(error.value)) < 220
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["--device", "cuda:99"])
    assert stop.value.code == 2
    assert "--device cuda:99 cannot be used here" in capsys.readouterr().err
    with pytest.raises(EvaluationError, match="--device must be cpu, cuda"):
        usable_device("meta")

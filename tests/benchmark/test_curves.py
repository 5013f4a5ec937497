import json

import numpy as np
import pytest

from symdiff_plugin.benchmark.curves import differences, main, smooth


def run(folder, values):
    folder.mkdir()
    rows = [json.dumps({"step": i + 1, "epoch": 0, "loss": v}) for i, v in enumerate(values)]
    (folder / "train_loss.jsonl").write_text("\n".join(rows) + "\n")
    return str(folder)


def test_a_difference_comes_with_its_error(tmp_path, capsys):
    noise = np.random.default_rng(0).normal(size=400)
    mean, error = differences(noise + 0.5, noise)
    assert mean == pytest.approx(0.5)
    assert error < 1e-12
    mean, error = differences(noise, np.zeros(400))
    assert error == pytest.approx(1 / np.sqrt(200), rel=0.1)
    assert abs(mean) < 4 * error
    folders = [run(tmp_path / name, noise[:60] + shift) for name, shift in (("a", 0.0), ("b", 0.25))]
    assert main([*folders, "--out", str(tmp_path / "curves.png")]) == 0
    assert "second half: +0.25000 +- 0.00000" in capsys.readouterr().out
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_smoothing_is_a_running_mean():
    values = np.arange(6.0)
    np.testing.assert_allclose(smooth(values, 3), [values[i : i + 3].mean() for i in range(4)])


def test_a_folder_without_losses_is_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path)])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert "give folders of runs" in err
    assert err.count("\n") == 1
    (tmp_path / "train_loss.jsonl").write_text('{"loss": 0.5}\n')
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path)])
    assert stopped.value.code == 2
    assert "train_loss.jsonl is damaged" in capsys.readouterr().err

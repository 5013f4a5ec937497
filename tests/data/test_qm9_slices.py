"""Slices: drawn alike from the full set and from qm9pack, with every element wherever EDM wants it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from qm9_files import Command, assert_refused, snapshot

from symdiff_plugin.data import SPLITS, DataError, check_datadir, load_split, make_slice_from_qm9pack, write_slice
from symdiff_plugin.data.qm9_slices import draw_slice, element_presence

ELEMENTS = {1, 6, 7, 8, 9}


def arrays_of(datadir: Path) -> dict[str, dict[str, np.ndarray]]:
    return {split: load_split(datadir, split) for split in SPLITS}


def elements(charges: np.ndarray) -> set[int]:
    return set(np.unique(charges).tolist()) - {0}


def assert_same(one: Path, other: Path) -> None:
    a, b = arrays_of(one), arrays_of(other)
    for split in SPLITS:
        assert list(a[split]) == list(b[split])
        for key in a[split]:
            assert a[split][key].tobytes() == b[split][key].tobytes(), (split, key)


def test_from_qm9pack_is_from_the_full_set(full: Path, tmp_path: Path, command: Command) -> None:
    result = command("--datadir", tmp_path / "packed", "--slice", 300, 60, 50)
    assert result.returncode == 0, result.stderr
    assert str(tmp_path / "packed" / "qm9") in result.stdout
    result = command("--datadir", tmp_path / "drawn", "--slice", 300, 60, 50, "--slice-of", full)
    assert result.returncode == 0, result.stderr
    assert_same(tmp_path / "packed", tmp_path / "drawn")
    check_datadir(tmp_path / "packed")
    assert json.loads((tmp_path / "packed/qm9/slice.json").read_text())["sizes"] == {
        "train": 300, "valid": 60, "test": 50,
    }  # fmt: skip

    before = snapshot(tmp_path / "packed")
    result = command("--datadir", tmp_path / "packed", "--slice", 300, 60, 50)
    assert result.returncode == 0
    assert "already there, content verified" in result.stdout
    make_slice_from_qm9pack(tmp_path / "packed", 300, 60, 50)
    assert snapshot(tmp_path / "packed") == before


def test_rows_are_those_of_the_full_set(full: Path, small: Path) -> None:
    for split, size in zip(SPLITS, (40, 10, 10), strict=True):
        part, whole = load_split(small, split), load_split(full, split)
        assert len(part["index"]) == size
        assert (np.diff(part["index"]) > 0).all()
        rows = np.searchsorted(whole["index"], part["index"])
        for key in whole:
            np.testing.assert_array_equal(part[key], whole[key][rows])


@pytest.mark.parametrize("sizes", [(4, 2, 2), (5, 3, 3), (30, 10, 10), (1000, 200, 200)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_element_is_where_edm_wants_it(
    charges: dict[str, np.ndarray], sizes: tuple[int, int, int], seed: int
) -> None:
    presence = {split: element_presence(values) for split, values in charges.items()}
    drawn = draw_slice(presence, sizes, seed)
    again = draw_slice(presence, sizes, seed)
    for split, size in zip(SPLITS, sizes, strict=True):
        rows = drawn[split]
        np.testing.assert_array_equal(rows, again[split])
        assert len(rows) == len(set(rows.tolist())) == size
        assert (np.diff(rows) > 0).all()
        taken = charges[split][rows]
        assert elements(taken) == ELEMENTS
        assert (taken == 9).any(axis=1).sum() >= 2
    # The halves of the training split, as EDM's qm9_first_half and qm9_second_half take them.
    state = np.random.get_state()
    np.random.seed(42)
    order = np.random.permutation(sizes[0])
    np.random.set_state(state)
    train = charges["train"][drawn["train"]]
    assert elements(train[order[: sizes[0] // 2]]) == ELEMENTS
    assert elements(train[order[sizes[0] // 2 :]]) == ELEMENTS


def test_a_plain_draw_would_not_do(charges: dict[str, np.ndarray]) -> None:
    """Negative control: without the care taken, small slices lack fluorine."""
    random = np.random.RandomState(0)
    lacking = sum(elements(charges["test"][random.choice(len(charges["test"]), 10)]) != ELEMENTS for _ in range(20))
    assert lacking >= 10


def test_a_large_slice_is_a_random_sample(charges: dict[str, np.ndarray]) -> None:
    """Fluorine and sizes are as frequent as in the whole, within four standard errors."""
    presence = {split: element_presence(values) for split, values in charges.items()}
    rows = draw_slice(presence, (20_000, 200, 200))["train"]
    for statistic in (presence["train"][:, 4].astype(float), (charges["train"] > 0).sum(axis=1).astype(float)):
        error = abs(statistic[rows].mean() - statistic.mean())
        assert error < 4 * statistic.std() / np.sqrt(len(rows))


def test_the_seed_matters(charges: dict[str, np.ndarray]) -> None:
    presence = {split: element_presence(values) for split, values in charges.items()}
    one, other = draw_slice(presence, (50, 20, 20), 0), draw_slice(presence, (50, 20, 20), 1)
    for split in SPLITS:
        assert set(one[split].tolist()) != set(other[split].tolist())


def test_another_slice_is_not_overwritten_unasked(full: Path, small: Path, command: Command) -> None:
    before = snapshot(small)
    for arguments in (
        ["--slice", 41, 10, 10], ["--slice", 40, 10, 10, "--seed", 1],
        ["--slice", 41, 10, 10, "--slice-of", full], [],
    ):  # fmt: skip
        result = command("--datadir", small, *arguments)
        assert_refused(result, 2, "holds a slice of 40/10/10", "--force")
    with pytest.raises(DataError, match="--force"):
        write_slice(full, small, 41, 10, 10)
    assert snapshot(small) == before

    write_slice(full, small, 41, 10, 10, force=True)
    assert len(load_split(small, "train")["index"]) == 41
    assert_refused(command("--datadir", full, "--slice", 40, 10, 10), 2, "holds no slice", "--force")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--slice", 3, 10, 10], "train"),
        (["--slice", 40, 0, 10], "valid"),
        (["--slice", 40, 10, -5], "test"),
        (["--slice", 40, 10, 13_084], "13,083"),
        (["--slice", 40, 10, 10, "--seed", -1], "seed"),
        (["--slice", 40, 10], "--slice"),
        (["--slice", 40, 10, "many"], "many"),
        (["--seed", 3], "--slice"),
        (["--slice-of", "x"], "--slice"),
        (["--slice", 40, 10, 10, "--slice-of", "nowhere"], "nowhere"),
    ],
)
def test_bad_slices_are_refused(tmp_path: Path, command: Command, arguments: list[object], word: str) -> None:
    assert_refused(command("--datadir", tmp_path / "d", *arguments), 2, word)
    assert not (tmp_path / "d").exists()


def test_a_slice_of_itself_is_refused(full: Path) -> None:
    before = snapshot(full)
    with pytest.raises(DataError, match="itself"):
        write_slice(full, full, 40, 10, 10, force=True)
    assert snapshot(full) == before


@pytest.fixture(scope="module")
def charges(full: Path) -> dict[str, np.ndarray]:
    return {split: load_split(full, split)["charges"] for split in SPLITS}

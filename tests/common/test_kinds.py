"""Kinds of values, from text and otherwise."""

from __future__ import annotations

import argparse
import math

import pytest

from symdiff_plugin.common.kinds import (
    BOOLEAN,
    FOLDER_NAME,
    SCHEDULE,
    choice,
    optional,
    positive_numbers,
    real,
    several,
    whole,
    word_or,
)

FACTORS = positive_numbers(3, 1e-6, 1e6, "[1,4,10]")
PROPERTY = choice("mu", "alpha")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (whole(), "1", 1),
        (whole(0, 3), " 3 ", 3),
        (real("[0, 1)"), "0", 0.0),
        (real("(0, 0.5]"), "5e-1", 0.5),
        (real("(0, inf]"), "inf", math.inf),
        (PROPERTY, "mu", "mu"),
        (several(PROPERTY), "alpha", "alpha"),
        (word_or(whole(), "auto"), "auto", None),
        (word_or(whole(), "auto"), "7", 7),
        (BOOLEAN, "yes", True),
        (FACTORS, "[1, 4, 10]", [1, 4, 10]),
        (SCHEDULE, "polynomial_2", "polynomial_2"),
        (SCHEDULE, "polynomial_2.5", "polynomial_2.5"),
        (FOLDER_NAME, "study/run-1_a.b", "study/run-1_a.b"),
    ],
)
def test_a_text_is_read(kind, text, value) -> None:
    read = kind(text)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (whole(0, 3), ["-1", "4", "1.0", "x", "", "nan", "9" * 5000]),
        (real("[0, 1)"), ["1", "-1e-9", "nan", "inf", "x"]),
        (real("(0, inf)"), ["0", "inf", "-inf", "nan"]),
        (PROPERTY, ["MU", "", "gap"]),
        (several(PROPERTY), ["gap"]),
        (word_or(whole(), "auto"), ["automatic", "0"]),
        (BOOLEAN, ["2", "None"]),
        (FACTORS, ["[1,4]", "[1,4,0]", "[1,4,True]", "(1", "__import__('os')", "[" * 10_000]),
        (SCHEDULE, ["linear", "polynomial_", "polynomial_0", "polynomial_101", "polynomial_2_3"]),
        (FOLDER_NAME, ["", ".", "..", "a/..", "/a", "a/", "a//b", "-a", ".a", "a\\b", "a\0b"]),
    ],
)
def test_any_other_is_refused_in_words(kind, texts) -> None:
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError, match="must be ") as error:
            kind(text)
        assert len(str(error.value)) < 250


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (whole(), [1, 1e8], [0, 1.5, True, "1", None, [1], math.nan, math.inf]),
        (real("(0, inf)"), [1, 0.5], [True, "1", None, math.nan]),
        (optional(whole()), [None, 1], [0]),
        (several(PROPERTY), [[], ["mu"], ("alpha", "mu")], ["mu", ["gap"], ["mu", "mu"], [["mu"]], None, 3]),
        (FACTORS, [[1, 4, 10], (1, 1, 1)], [[1, 4], "abc", [1, 4, math.inf], None]),
        (FOLDER_NAME, ["a"], [None, 3]),
        (SCHEDULE, ["cosine"], [None, 2]),
    ],
)
def test_values_from_elsewhere_are_judged_alike(kind, right, wrong) -> None:
    assert [value for value in right if kind.fault(value)] == []
    assert [value for value in wrong if not kind.fault(value)] == []

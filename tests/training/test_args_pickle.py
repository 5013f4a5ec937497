"""Reading args.pickle: what EDM writes comes back, anything else is refused and nothing of it runs."""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path

import pytest

from symdiff_plugin.training.args_pickle import ArgumentsError, read_args_pickle

PLAIN = {"lr": 1e-4, "model": "egnn_dynamics", "conditioning": [], "normalize_factors": [1, 4, 10], "resume": None,
         "cuda": True, "nested": {"a": (1, 2)}}  # fmt: skip


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_namespace_of_plain_values_comes_back(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "args.pickle"
    path.write_bytes(pickle.dumps(argparse.Namespace(**PLAIN), protocol=protocol))
    assert vars(read_args_pickle(path)) == PLAIN


class Runs:
    """A pickle that touches a file when it is loaded."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("function", [os.system, subprocess.getoutput, eval])
def test_nothing_in_a_file_is_run(tmp_path: Path, function, inside: bool) -> None:
    trace = tmp_path / "trace"
    words = f"open({str(trace)!r}, 'w')" if function is eval else f"touch {trace}"
    payload = Runs(function, words)
    pickle.loads(pickle.dumps(payload))
    assert trace.exists()  # the attack works on a reader without restrictions
    trace.unlink()
    path = tmp_path / "args.pickle"
    path.write_bytes(pickle.dumps(argparse.Namespace(x=payload) if inside else payload))
    with pytest.raises(ArgumentsError, match=r"asks for .*nothing of it was run"):
        read_args_pickle(path)
    assert not trace.exists()


def cyclic() -> argparse.Namespace:
    values: list = []
    values.append(values)
    return argparse.Namespace(x=values)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"lr": 1}),
        pickle.dumps(argparse.Namespace(x=argparse.Namespace(y=1))),
        pickle.dumps(argparse.Namespace(x=OrderedDict())),
        pickle.dumps(argparse.Namespace(x=b"bytes")),
        pickle.dumps(cyclic()),
        pickle.dumps(argparse.Namespace(x="x" * (1 << 20))),
        pickle.dumps(argparse.Namespace(x=1))[:-5],
        b"",
        b"not a pickle",
        b"cargparse\nNamespace\n(N}Vformat_help\nVx\nstb.",  # sets an attribute of the class itself
    ],
)
def test_what_is_no_namespace_of_plain_values_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "args.pickle"
    path.write_bytes(content)
    with pytest.raises(ArgumentsError) as caught:
        read_args_pickle(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not hasattr(argparse.Namespace, "format_help")


def test_a_missing_file_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ArgumentsError, match=r"No such file.*give the folder of a run"):
        read_args_pickle(tmp_path / "args.pickle")

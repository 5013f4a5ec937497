#!/usr/bin/env python3
"""Kill a tiny training at random moments, go on, and compare the end with that of an unbroken one.

``python scripts/kills.py --datadir data --kills 50`` trains a tiny SymDiff on a slice of QM9 once to its end. Then, for
every kill, it trains it anew, ends that with SIGKILL or SIGTERM at a random moment, lets the same command go on, and
compares weights, optimiser, random generators, losses and metrics to the last bit. Exit status 1 if any differs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from symdiff_plugin.data import write_slice
from symdiff_plugin.edm import edm_directory

# What the scripts import, imported once: processes are forked from this one.
for _name in ("imageio", "matplotlib.pyplot", "rdkit.Chem", "scipy.stats", "symdiff_plugin.data.geom.loading",
              "symdiff_plugin.hooks", "symdiff_plugin.model.dynamics"):  # fmt: skip
    importlib.import_module(_name)
FLAGS = (
    "--model", "symdiff", "--hidden_size", "32", "--depth", "1", "--num_heads", "2", "--xh_hidden_size", "16",
    "--K", "8", "--enc_hidden_size", "16", "--enc_depth", "1", "--enc_num_heads", "2", "--dec_hidden_features", "8",
    "--seed", "1", "--diffusion_steps", "8", "--batch_size", "16", "--n_epochs", "3", "--test_epochs", "1",
    "--n_stability_samples", "4", "--n_report_steps", "4", "--no_wandb", "--checkpoint_minutes", "0.001",
)  # fmt: skip


def start(script: Path, flags: Sequence[object], prepare: Callable[[], None] = lambda: None) -> int:
    """Run one of EDM's scripts in a process forked from this one, which has imported the packages; its number.

    Args:
        script: its path.
        flags: its command line.
        prepare: called in the new process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if process := os.fork():
        return process
    status: Any = 1
    try:
        torch.set_num_threads(1)  # those of other threads were not forked
        prepare()
        sys.path.insert(0, str(script.parent))
        sys.argv = [str(script), *map(str, flags)]
        runpy.run_path(str(script), run_name="__main__")
        status = 0
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        status = stop.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


def end_of(process: int) -> int:
    """The exit status, as a shell has it."""
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return 128 - status if status < 0 else status


def differences(whole: Path, parts: Path) -> list[str]:
    """What is not the same to the last bit in two runs' folders: weights, optimiser, generators, losses, metrics."""
    found = []
    for name in ("checkpoint.pt", "generative_model.npy", "generative_model_ema.npy", "optim.npy"):
        one, other = (torch.load(folder / name, weights_only=True, map_location="cpu") for folder in (whole, parts))
        found += [f"{name}: {key}" for key in one if key != "args" and not same(one[key], other[key])]
    for name in ("history.jsonl", "train_loss.jsonl"):
        one, other = (_rows(folder / name) for folder in (whole, parts))
        found += [name] if one != other else []
    return found


def same(a: Any, b: Any) -> bool:
    """Whether two values of a checkpoint are the same to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.endswith("seconds")} for row in rows]


def _quiet() -> None:
    for stream in (1, 2):
        os.dup2(os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)


def main() -> int:
    """The command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--datadir", type=Path, required=True, help="holds QM9, of which 240 molecules are trained on")
    parser.add_argument("--kills", type=int, default=50, help="how many (50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    options = parser.parse_args()
    script, draw = edm_directory().resolve() / "main_qm9.py", random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        write_slice(options.datadir.resolve(), f"{folder}/data", 240, 60, 60)
        os.chdir(folder)
        flags = (*FLAGS, "--datadir", "data", "--resume", "auto", "--exp_name")
        began = time.monotonic()
        if end_of(start(script, (*flags, "unbroken"), _quiet)):
            print(Path("log").read_text()[-2000:])
            return 1
        seconds = time.monotonic() - began
        print(f"unbroken: {seconds:.1f} s", flush=True)
        equal = inside = 0
        for number in range(options.kills):
            shutil.rmtree("outputs/parts", ignore_errors=True)
            cause, wait = draw.choice((signal.SIGKILL, signal.SIGTERM)), draw.uniform(0, seconds)
            process = start(script, (*flags, "parts"), _quiet)
            time.sleep(wait)
            os.kill(process, cause)
            status = end_of(process)
            try:
                record = torch.load("outputs/parts/checkpoint.pt", weights_only=True)
                at = f"epoch {record['epoch']} step {record['inside']['done'] if record['inside'] else 0}"
                inside += record["inside"] is not None
            except FileNotFoundError:
                at = "no checkpoint yet"
            then = end_of(start(script, (*flags, "parts"), _quiet))
            found = [f"exit status {then}"] if then else differences(Path("outputs/unbroken"), Path("outputs/parts"))
            left = [path.name for path in Path("outputs/parts").glob(".*.partial")]
            found += [f"left: {name}" for name in left]
            equal += not found
            print(f"{number + 1}: {cause.name} after {wait:.2f} s, status {status}, {at}: "
                  f"{found or 'equal'}", flush=True)  # fmt: skip
    print(f"{equal} of {options.kills} equal to the unbroken run, to the last bit ({inside} went on inside an epoch)")
    return int(equal != options.kills)


if __name__ == "__main__":
    sys.exit(main())

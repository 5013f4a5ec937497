"""docs/samplers.md: what samples of qm9-mini are worth by each sampler, and what they cost.

    python scripts/samplers.py run [--only TEXT]    sample and judge, a line of docs/samplers.jsonl a cell; goes on
    python scripts/samplers.py time                 seconds a molecule, on a machine that does nothing else
    python scripts/samplers.py page                 docs/samplers.md and docs/samplers.png from what there is

A cell is a sampler with its settings, a seed and a number of molecules; a cell that has its line is not computed again.
Needs EDM, whose rules judge.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import symdiff_plugin.pretrained
from symdiff_plugin.process.sampler import Sampler

DOCS = Path(__file__).resolve().parents[1] / "docs"
CELLS, TIMES = DOCS / "samplers.jsonl", DOCS / "sampler_times.jsonl"
PAGE, PLOT = DOCS / "samplers.md", DOCS / "samplers.png"
MODEL, T, BATCH = "qm9-mini", 1000, 100
CALLS = (10, 25, 50, 100, 250, 1000)
NAMES = ("sde-dpm++", "ancestral", "dpm++", "ddim", "heun", "euler-maruyama")


def cells() -> Iterator[tuple[dict[str, Any], int, int]]:
    """Flags, seed and molecules, those first that decide what the default is."""
    for name, calls in [("sde-dpm++", 50), ("sde-dpm++", 25), ("sde-dpm++", 100), ("dpm++", 50), ("ddim", 50),
                        ("heun", 50), ("ancestral", 50), ("sde-dpm++", 10), ("euler-maruyama", 50)]:  # fmt: skip
        yield {"sampler": name, "sampling_steps": calls}, 1, 1000
    yield {"sampler": "sde-dpm++", "sampling_steps": 50}, 2, 1000
    for other in ({"step_grid": "karras"}, {"stochasticity": 1.3}, {"stochasticity": 0.7}, {"corrector_steps": 1},
                  {"step_grid": "time"}):  # fmt: skip
        yield {"sampler": "sde-dpm++", "sampling_steps": 50, **other}, 1, 1000
    for seed in (1, 2):
        yield {}, seed, 1000
    for calls in CALLS[:-1]:
        for name in NAMES:
            yield {"sampler": name, "sampling_steps": calls}, 1, 1000
    for name in NAMES:
        yield {"sampler": name, "sampling_steps": 1000}, 1, 1000


def key(flags: dict[str, Any], seed: int, n: int) -> tuple:
    return (Sampler.of(flags, T), seed, n)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of ``path``; one that was cut off, the last, is left out."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def of_the_card() -> dict[str, Any]:
    """The reference: what was measured with EDM's own sampler when the model was made, seed 0."""
    card = json.loads((Path(symdiff_plugin.pretrained.__file__).parent / f"{MODEL}.json").read_text(encoding="utf-8"))
    sizes = {int(size): count for size, count in card["n_nodes"].items()}
    mean = sum(size * count for size, count in sizes.items()) / sum(sizes.values())
    n = card["metrics"]["n_samples"]
    return {**Sampler.of({}, T).record(), **card["metrics"], "atoms": round(n * mean)}


def append(path: Path, record: dict[str, Any]) -> None:
    cut_off = path.exists() and not path.read_bytes().endswith(b"\n")  # killed while writing
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * cut_off + json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def known(path: Path) -> set[tuple]:
    return {key(line, line["seed"], line["n_samples"]) for line in read(path)}


def judged(model: Any, flags: dict[str, Any], seed: int, n: int) -> dict[str, Any]:
    """A cell: fractions by EDM's rules, and how many atoms they are of."""
    from symdiff_plugin.edm import import_edm
    from symdiff_plugin.evaluate.metrics import judge, summarise
    from symdiff_plugin.sample import sample_pretrained

    sampler = Sampler.of(flags, T)
    sampled = sample_pretrained(model, n, BATCH, seed, sampler)
    info = import_edm("configs.datasets_config").get_dataset_info("qm9", False)
    verdicts = judge(sampled.molecules, info)
    fractions = summarise(sampled.molecules, verdicts)
    return {
        **sampler.record(), "calls": sampler.calls, "seed": seed, "n_samples": n,
        "atoms": sum(map(len, sampled.molecules)),
        **{name: round(value, 6) for name, value in fractions.items() if value is not None},
    }  # fmt: skip


def run(only: str) -> None:
    from symdiff_plugin.pretrained import load

    model = load(MODEL)
    for flags, seed, n in cells():
        if key(flags, seed, n) in known(CELLS) or only not in str(Sampler.of(flags, T)):
            continue
        record = judged(model, flags, seed, n)
        append(CELLS, record)
        print(
            f"{Sampler.of(flags, T)}, seed {seed}, {n:,} molecules: "
            f"{100 * record['atom_stability']:.1f} / {100 * record['molecule_stability']:.1f} / "
            f"{100 * record['validity']:.1f} / {100 * record['connected']:.1f} (atoms and molecules stable, valid, "
            "connected)", flush=True,
        )  # fmt: skip


def time_all() -> None:
    """Seconds a molecule, of 100 at once, the least of three."""
    import torch

    from symdiff_plugin.pretrained import load
    from symdiff_plugin.sample import sample_pretrained

    model = load(MODEL)
    for calls in CALLS:
        for name in NAMES:
            sampler = Sampler.of({"sampler": name, "sampling_steps": calls}, T)
            if key(sampler.record(), 0, BATCH) in known(TIMES):
                continue
            times = []
            for _ in range(3 if calls <= 100 else 1):
                start = time.perf_counter()
                sample_pretrained(model, BATCH, BATCH, 0, sampler)
                times.append((time.perf_counter() - start) / BATCH)
            append(
                TIMES,
                {**sampler.record(), "seed": 0, "n_samples": BATCH, "seconds": min(times),
                 "threads": torch.get_num_threads()},
            )  # fmt: skip


def interval(fraction: float, n: int) -> tuple[float, float]:
    """Wilson's interval of a fraction of n, 95%."""
    z = 1.96
    middle = (fraction + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(fraction * (1 - fraction) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def pooled(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells of one sampler together, whatever their seed; the uniqueness is the cells' mean."""
    groups: dict[Sampler, list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(Sampler.of(line, T), []).append(line)
    found = []
    for sampler, group in groups.items():
        n, atoms = sum(line["n_samples"] for line in group), sum(line["atoms"] for line in group)
        record = {"sampler": sampler, "n": n, "seeds": sorted(line["seed"] for line in group)}
        for name in ("molecule_stability", "validity", "uniqueness", "connected", "valid_connected", "non_finite"):
            record[name] = sum(line[name] * line["n_samples"] for line in group) / n
        record["atom_stability"] = sum(line["atom_stability"] * line["atoms"] for line in group) / atoms
        found.append(record)
    return sorted(found, key=lambda one: (NAMES.index(one["sampler"].sampler), one["sampler"].sampling_steps,
                                          str(one["sampler"])))  # fmt: skip


MEASURES = ("atom_stability", "molecule_stability", "validity", "connected")


def page() -> None:
    rows = pooled([of_the_card(), *read(CELLS)])
    seconds = {Sampler.of(line, T): line["seconds"] for line in read(TIMES)}
    default = {Sampler.of({"sampler": name, "sampling_steps": calls}, T) for name in NAMES for calls in CALLS}
    usual = [row for row in rows if row["sampler"] in default]
    plot(usual)
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else f"{BEGIN}\n{END}\n"
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    tables = ["", *table(usual, seconds), ""]
    others = [row for row in rows if row not in usual]
    if others:
        tables += ["Other settings of the same samplers:", "", *table(others, seconds), ""]
    PAGE.write_text(before + "\n".join([BEGIN, *tables, END]) + after, encoding="utf-8")


BEGIN, END = "<!-- made by scripts/samplers.py page -->", "<!-- end -->"


def table(rows: list[dict[str, Any]], seconds: dict[Sampler, float]) -> list[str]:
    lines = [
        "| sampler | calls | grid | eta | atoms stable, % | molecules stable, % | valid, % | unique, % | connected, % "
        "| N | s a molecule |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        one = row["sampler"]
        cells = []
        for name in ("atom_stability", "molecule_stability", "validity", "uniqueness", "connected"):
            value = 100 * row[name]
            if name in ("uniqueness", "atom_stability"):  # of atoms of one molecule no interval for independent ones
                cells.append(f"{value:.1f}")
            else:
                low, high = interval(row[name], row["n"])
                cells.append(f"{value:.1f} ({100 * low:.1f} to {100 * high:.1f})")
        corrections = f" + {one.corrector_steps} Langevin" if one.corrector_steps else ""
        lines.append(
            f"| {one.sampler}{corrections} | {one.sampling_steps} | {one.step_grid} | {one.stochasticity:g} | "
            + " | ".join(cells)
            + f" | {row['n']:,} | {f'{seconds[one]:.3f}' if one in seconds else ''} |"
        )
    return lines


def plot(rows: list[dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6))
    for axis, measure in zip(axes, MEASURES, strict=True):
        for name in NAMES:
            mine = [row for row in rows if row["sampler"].sampler == name]
            if not mine:
                continue
            x = [row["sampler"].sampling_steps for row in mine]
            y = [100 * row[measure] for row in mine]
            bounds = [interval(row[measure], row["n"]) for row in mine]
            error = [[v - 100 * low for v, (low, _) in zip(y, bounds, strict=True)],
                     [100 * high - v for v, (_, high) in zip(y, bounds, strict=True)]]  # fmt: skip
            axis.errorbar(x, y, None if measure == "atom_stability" else error, marker="o", ms=4, capsize=2, label=name)
        axis.set(xscale="log", xlabel="network calls", title=measure.replace("_", " ") + ", %")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "time", "page"))
    parser.add_argument("--only", default="", metavar="TEXT", help="cells whose sampler, as printed, has this in it")
    options = parser.parse_args()
    with contextlib.redirect_stdout(sys.stdout if options.what != "time" else io.StringIO()):
        {"run": lambda: run(options.only), "time": time_all, "page": page}[options.what]()
    return 0


if __name__ == "__main__":
    sys.exit(main())

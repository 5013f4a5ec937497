"""``python -m symdiff_plugin.sample``: molecules from a pretrained model, without EDM, or from a run's folder."""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symdiff_plugin.common.command_line import OneLineParser, refuse
from symdiff_plugin.common.kinds import DEVICE, SAMPLES, SEED, whole, word_or
from symdiff_plugin.presets import PRECISIONS
from symdiff_plugin.process.probabilistic_model import FLOW
from symdiff_plugin.process.sampler import FAST, USUAL, Sampler, add_sampler_flags

if TYPE_CHECKING:
    from torch import Tensor

    from symdiff_plugin.molecules.molecule import Molecule
    from symdiff_plugin.molecules.perception import Perceived
    from symdiff_plugin.pretrained import Pretrained

PICTURED = 20
_ORDER = ("valid", "not valid", "in pieces", "not finite")  # of Perceived.words, in the picture
_MEASURED = ("atom_stability", "molecule_stability", "validity", "connected")  # of a card's metrics, in the table


@dataclass(frozen=True)
class Sampled:
    """Molecules in the order in which their sizes were drawn, molecules at once batch by batch, and seconds."""

    molecules: list[Molecule]
    batch_sizes: list[int]
    seconds: float


def sample_pretrained(
    model: Pretrained, n_samples: int, batch_size: int, seed: int = 0, sampler: Sampler | None = None
) -> Sampled:
    """Draw molecules, their sizes from the histogram of the training set.

    The same arguments on the same machine give the same molecules.

    Args:
        model: from :func:`symdiff_plugin.pretrained.load`.
        n_samples: how many.
        batch_size: how many at once.
        seed: of torch's generators.
        sampler: EDM's own, all T steps, if not given.

    Returns:
        The molecules, in Angstrom; one for which the network returned something not finite has NaN for coordinates.

    Raises:
        EvaluationError: a single molecule does not fit into the memory of the GPU.
    """
    import torch

    from symdiff_plugin.common.progress import counting
    from symdiff_plugin.evaluate.by_size import in_batches

    start = time.monotonic()
    sampler = sampler or Sampler.of({"probabilistic_model": model.schedule.process}, model.schedule.steps)
    torch.manual_seed(seed)
    sizes = model.draw_sizes(n_samples)
    with counting(f"Sampling {n_samples:,} molecules", n_samples, "molecules") as advance:
        molecules, batch_sizes = in_batches(
            sizes, batch_size, model.device, lambda batch: _sample_batch(model, sizes[batch], sampler, advance)
        )
    return Sampled(molecules, batch_sizes, time.monotonic() - start)


def _sample_batch(
    model: Pretrained, sizes: Tensor, sampler: Sampler, advance: Callable[[float], None]
) -> list[Molecule] | None:
    """Molecules of the given sizes (B,); None if the GPU's memory is too small."""
    import torch

    from symdiff_plugin.molecules.molecule import from_padded
    from symdiff_plugin.process.diffusion import padded_mask, sample
    from symdiff_plugin.process.divergence import DivergenceGuard

    part = len(sizes) / sampler.calls  # a call of the network brings all molecules on alike
    dynamics = DivergenceGuard(model.dynamics, lambda: advance(part))
    length = int(model.sizes.max()) if model.dynamics.depends_on_padding else None
    mask = padded_mask(sizes, length=length).to(model.device)
    try:
        x, types = sample(
            dynamics, model.schedule, mask, len(model.atom_types), model.n_features, model.position_scale, sampler
        )
    except torch.cuda.OutOfMemoryError:
        advance(-part * dynamics.calls)
        return None
    return from_padded(dynamics.marked(x), types.cpu().numpy(), mask.squeeze(-1).cpu().numpy(), model.atom_types)


def pretrained_batch_size(model: Pretrained) -> int:
    """As many as memory and speed suggest; see :mod:`symdiff_plugin.evaluate.batch_size`. Draws random numbers.

    Raises:
        EvaluationError: memory cannot be measured on the model's device.
    """
    import torch

    from symdiff_plugin.evaluate.batch_size import fitting
    from symdiff_plugin.process.diffusion import centred_noise

    @torch.no_grad()
    def denoise(n_molecules: int) -> None:
        mask = torch.ones(n_molecules, int(model.sizes.max()), 1, device=model.device)
        time = torch.ones(1, 1, device=model.device)
        model.dynamics._forward(time, centred_noise(mask, model.n_features), mask)

    return fitting(denoise, model.device)


def summary_of_samples(
    model: Pretrained, sampled: Sampled, perceived: Sequence[Perceived], settings: dict[str, Any]
) -> dict:
    """What ``summary.json`` holds: the settings and the fractions, with the rule that they are by."""
    from symdiff_plugin.molecules.perception import RULE, perceived_fractions

    return {
        "note": "without EDM: these fractions do not compare with EDM's validity and stability",
        "rule": RULE,
        "pretrained": model.name,
        "sha256": model.card["weights"]["sha256"],
        **({"recognised": model.card["recognised"]} if "recognised" in model.card else {}),
        "measured_with_edm": model.card.get("metrics"),
        **settings,
        "batch_sizes": [[size, len(list(equal))] for size, equal in itertools.groupby(sampled.batch_sizes)],
        **perceived_fractions(perceived),
        "seconds_per_sample": sampled.seconds / len(sampled.molecules),
    }


def write_samples(
    folder: Path, molecules: Sequence[Molecule], perceived: Sequence[Perceived], record: dict[str, Any]
) -> list[Path]:
    """Write ``molecules.xyz``, ``molecules.sdf``, ``samples.png`` and ``summary.json``, all of them or none.

    Raises:
        OSError: something cannot be written; what was there before is untouched.
    """
    from symdiff_plugin.common.files import write_json
    from symdiff_plugin.molecules.molecule import write_xyz
    from symdiff_plugin.molecules.perception import write_perceived
    from symdiff_plugin.molecules.picture import write_picture

    best = sorted(range(len(molecules)), key=lambda i: (_ORDER.index(perceived[i].words), perceived[i].pieces))
    best = best[:PICTURED]
    n_valid = sum(one.smiles is not None for one in perceived)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".samples.", dir=folder) as temporary:
        new = Path(temporary)
        write_xyz(new / "molecules.xyz", molecules, [one.smiles or one.words for one in perceived])
        write_perceived(new / "molecules.sdf", perceived)
        write_picture(
            new / "samples.png",
            [molecules[i] for i in best],
            [(perceived[i].words, perceived[i].smiles is not None) for i in best],
            f"{len(best)} of {len(molecules):,} samples, valid ones first ({n_valid:,} are valid)",
        )
        write_json(new / "summary.json", record)
        names = sorted(path.name for path in new.iterdir())
        for name in names:
            os.replace(new / name, folder / name)
    return [folder / name for name in names]


def samples_table(record: dict[str, Any]) -> str:
    """The summary as aligned lines of text."""
    rows = [
        ("Connected", f"{record['connected']:7.2%}  (molecules in one piece)"),
        ("Validity", f"{record['validity']:7.2%}  (neutral, in one piece, bond orders found by RDKit)"),
        ("Uniqueness", f"{record['uniqueness']:7.2%}  (of the valid)"),
        ("Non finite", f"{record['non_finite']:7.2%}"),
        ("Seconds a sample", f"{record['seconds_per_sample']:.4g} ({record['n_samples']:,} samples)"),
        ("By the rule", record["rule"]),
        ("Not EDM's", "its stability and validity come from python -m symdiff_plugin.evaluate"),
    ]
    measured = {name: (record["measured_with_edm"] or {}).get(name) for name in _MEASURED}
    if all(isinstance(value, float | int) for value in measured.values()):
        words = ", ".join(f"{name.replace('_', ' ')} {value:.1%}" for name, value in measured.items())
        rows.append(("With EDM", f"{words} (when the model was made)"))
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"  {label:{width}s}  {value}" for label, value in rows)


def _parser(prog: str) -> OneLineParser:
    parser = OneLineParser(
        prog=prog,
        description="Sample molecules from a model that comes with the package, without EDM, or from a run's folder.",
        epilog="Writes molecules.xyz, molecules.sdf, samples.png and summary.json.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("run", type=Path, nargs="?", help="folder of a run, of ours or of the authors' release (needs EDM)")
    add("--pretrained", metavar="NAME", help="python -m symdiff_plugin.pretrained list has the names")
    add("--n_samples", type=SAMPLES, default=100, metavar="N", help="molecules to sample (%(default)s)")
    add("--seed", type=SEED, default=0, metavar="N", help="of all random numbers (%(default)s)")
    add_sampler_flags(add, usual=f"{FAST}; flow_matching: {USUAL[FLOW]}")
    add("--out", type=Path, help="folder of the results (samples/NAME)")
    add("--device", type=DEVICE, help="cpu or cuda (cuda where there is one)")
    add("--precision", choices=PRECISIONS, default="fp32", help="of the network (%(default)s)")
    add(
        "--batch_size", type=word_or(whole(), "auto"), metavar="N|auto",
        help="molecules at once; auto looks at memory (auto)",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m symdiff_plugin.sample") -> int:
    """The command line. Returns the exit status: 0, 2 for bad input, 1 for what the machine lacks."""
    parser = _parser(prog)
    options = parser.parse_args(arguments)
    if (options.run is None) == (options.pretrained is None):
        parser.error("give --pretrained NAME or the folder of a run" + ("" if options.run is None else ", not both"))

    # Imported here so that --help and a wrong option answer at once.
    from symdiff_plugin.common.devices import usable_device
    from symdiff_plugin.common.errors import EvaluationError
    from symdiff_plugin.common.progress import progress
    from symdiff_plugin.edm import EdmError
    from symdiff_plugin.molecules.perception import perceive
    from symdiff_plugin.packed.precision import tell_if_slower
    from symdiff_plugin.pretrained import PretrainedError, load
    from symdiff_plugin.pretrained.export import from_run

    try:
        device = usable_device(options.device)
        if options.run is None:
            model = load(options.pretrained, device, options.precision)
        else:
            model = from_run(options.run, device=device, precision=options.precision)
            if recognised := model.card.get("recognised"):
                print(f"{options.run}: recognised {recognised}")
        try:
            usual = USUAL[FLOW] if model.schedule.process == FLOW else FAST
            given = {**vars(options), "sampler": options.sampler or usual}
            given |= {"model": model.card["model"], "frame": model.dynamics.architecture.frame}
            sampler = Sampler.of({**given, "probabilistic_model": model.schedule.process}, model.schedule.steps)
        except ValueError as error:
            parser.error(str(error))
        architecture = model.dynamics.architecture
        tell_if_slower(architecture.precision, model.device.type, architecture.hidden_size)
        auto = options.batch_size is None
        batch_size = pretrained_batch_size(model) if auto else options.batch_size
        sampled = sample_pretrained(model, options.n_samples, batch_size, options.seed, sampler)
        perceived = [perceive(one) for one in progress(sampled.molecules, "Finding bonds")]
        settings = {
            "n_samples": options.n_samples, "seed": options.seed, "batch_size": batch_size, "batch_size_auto": auto,
            "precision": options.precision, "device": str(model.device), **sampler.record(),
        }  # fmt: skip
        record = summary_of_samples(model, sampled, perceived, settings)
        out = options.out or Path("samples") / model.name
        written = write_samples(out, sampled.molecules, perceived, record)
    except (PretrainedError, EvaluationError) as error:
        return refuse(parser.prog, error, 2)
    except EdmError as error:
        return refuse(parser.prog, error, error.exit_status)
    except OSError as error:
        where = error.filename or options.out
        return refuse(parser.prog, f"{where}: {error.strerror or error}; make room or check the folder", 1)
    except KeyboardInterrupt:
        return refuse(parser.prog, "interrupted, nothing was written", 130)
    print(f"{model.name}: {model.card['model']}, {model.device}, {options.precision}, seed {options.seed}, {sampler}")
    print(samples_table(record))
    print("Written: " + ", ".join(map(str, written)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

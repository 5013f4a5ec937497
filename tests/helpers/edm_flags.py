"""The plugin's flags on a parser like EDM's; nothing of EDM is needed."""

from __future__ import annotations

import argparse

import pytest

from symdiff_plugin.training.arguments import parse_args


def edm_parser(geom: bool = False) -> argparse.ArgumentParser:
    """Some of EDM's flags, with EDM's own types."""
    parser = argparse.ArgumentParser(prog="main_qm9.py")
    parser.add_argument("--exp_name", type=str, default="debug_10")
    parser.add_argument("--model", type=str, default="egnn_dynamics")
    for name, kind, default in (
        ("diffusion_steps", int, 500), ("diffusion_noise_schedule", str, "polynomial_2"),
        ("diffusion_noise_precision", float, 1e-5), ("diffusion_loss_type", str, "l2"), ("n_epochs", int, 200),
        ("batch_size", int, 128), ("lr", float, 2e-4), ("dp", eval, True), ("condition_time", eval, True),
        ("n_layers", int, 6), ("nf", int, 128), ("n_report_steps", int, 1), ("online", bool, True),
        ("num_workers", int, 0), ("test_epochs", int, 10), ("data_augmentation", eval, False),
        ("resume", str, None), ("start_epoch", int, 0), ("ema_decay", float, 0.999), ("include_charges", eval, True),
        ("n_stability_samples", int, 500), ("normalize_factors", eval, [1, 4, 1]), ("wandb_usr", str, None),
        ("probabilistic_model", str, "diffusion"), ("augment_noise", float, 0), ("normalization_factor", float, 1),
        ("aggregation_method", str, "sum"), ("norm_constant", float, 1), ("ode_regularization", float, 1e-3),
        ("filter_n_atoms", int, None), ("attention", eval, True), ("tanh", eval, True), ("clip_grad", eval, True),
        ("save_model", eval, True), ("sin_embedding", eval, False), ("inv_sublayers", int, 1),
        ("visualize_every_batch", int, 1e8), ("dataset", str, "geom" if geom else "qm9"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=default)
    for name in ("--no_wandb", "--no-cuda", "--remove_h"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--conditioning", nargs="+", default=[])
    if geom:
        parser.add_argument("--filter_molecule_size", type=int, default=None)
    else:
        parser.add_argument("--datadir", type=str, default="qm9/temp")
    return parser


def parse(*argv: object, geom: bool = False) -> argparse.Namespace:
    return parse_args(edm_parser(geom), [str(word) for word in argv])


def refused(capsys: pytest.CaptureFixture[str], *argv: object, geom: bool = False) -> str:
    """The one line that a mistake ends in."""
    with pytest.raises(SystemExit) as stop:
        parse(*argv, geom=geom)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("main_qm9.py: error: ")
    return line

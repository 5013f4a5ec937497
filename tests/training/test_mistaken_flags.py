"""What the flags refuse, in one line each."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from edm_flags import edm_parser, parse, refused

from symdiff_plugin.training.arguments import parse_args

# What upstream takes: to train on nonsense, to end in a traceback, or to write somewhere else.
REFUSED = [
    ("--diffusion_noise_precision", "0", "a number in [1e-12, 0.5), not 0"),
    ("--diffusion_noise_precision", "nan", "a number in"),
    ("--normalization_factor", "0", "a number in (0, inf), not 0"),
    ("--aggregation_method", "max", "one of sum, mean, not max"),
    ("--augment_noise", "-1", "a number in [0, inf), not -1"),
    ("--lr", "inf", "a number in (0, inf), not inf"),
    ("--norm_constant", "nan", "a number in [0, inf), not nan"),
    ("--ode_regularization", "nan", "a number in"),
    ("--normalize_factors", "[1,4,1e400]", "3 numbers"),
    ("--exp_name", "../../x", "the name of a folder in outputs/"),
    ("--exp_name", "a/../../x", "the name of a folder in outputs/"),
    ("--exp_name", "/tmp/x", "the name of a folder in outputs/"),
    ("--exp_name", "", "the name of a folder in outputs/"),
    ("--exp_name", ".hidden", "the name of a folder in outputs/"),
    ("--exp_name", "two\nlines", "the name of a folder in outputs/"),
    ("--exp_name", "x" * 300, "the name of a folder in outputs/"),
    ("--conditioning", "charm", "one of A, B, C, mu, alpha"),
    ("--conditioning", "num_atoms", "one of A, B, C, mu, alpha"),
    ("--diffusion_noise_schedule", "linear", "learned, cosine or polynomial_P"),
    ("--diffusion_noise_schedule", "polynomial_0", "learned, cosine or polynomial_P"),
    ("--diffusion_noise_schedule", "polynomial_nan", "learned, cosine or polynomial_P"),
    ("--diffusion_loss_type", "l1", "one of vlb, l2, not l1"),
    ("--probabilistic_model", "flow", "one of diffusion, score_matching, flow_matching, not flow"),
    ("--n_stability_samples", "10000000000", "a whole number from 1 to 10000000"),
    ("--n_layers", "0", "a whole number from 1 to 1000, not 0"),
    ("--nf", "-3", "a whole number from 1 to 16384, not -3"),
    ("--batch_size", str(10**30), "a whole number from 1 to 2147483647"),
    ("--num_workers", "-1", "a whole number from 0 to 1024, not -1"),
    ("--filter_n_atoms", "0", "a whole number from 1"),
    ("--n_epochs", "1.5", "a whole number from 0"),
]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "sydiff"], "--model must be one of egnn_dynamics, gnn_dynamics, symdiff,"),
        (["--model", "symdiff", "--hiden_size", "3"], "unrecognized arguments: --hiden_size"),
        (["--hidden_size", "3"], "--hidden_size: for the plugin's models alone, not for --model egnn_dynamics"),
        (["--symdiff_compat", "paper"], "--symdiff_compat: for the plugin's models alone"),
        (["--clip_norm", "1", "--K", "9"], "--K, --clip_norm: for the plugin's models alone"),
        (["--model", "symdiff", "--hidden_size", "385"], "hidden_size = 385 must be a multiple of num_heads = 6"),
        (["--model", "symdiff", "--precision", "fp8"], "--precision must be one of fp32, bf16, not fp8"),
        (["--model", "symdiff", "--clip_norm", "nan"], "--clip_norm must be a number in (0, inf], not nan"),
        (["--model", "symdiff", "--weight_decay", "-1"], "--weight_decay must be a number in [0, inf), not -1"),
        (["--model", "symdiff", "--condition_time", "False"], "--condition_time must be True"),
        (["--condition_time", "False"], "--condition_time must be True"),  # EDM's models fail with it
        (["--fused", "True"], "--fused: for the plugin's models alone"),
        (["--keep_checkpoints", "some"], "--keep_checkpoints must be True or False, not 'some'"),
        (["--lr", "fast"], "--lr must be a number in (0, inf), not 'fast'"),
        (["--lr", "0"], "--lr must be a number in (0, inf), not 0.0"),
        (["--lr", "nan"], "--lr must be a number in (0, inf), not nan"),
        (["--batch_size", "0"], "--batch_size must be a whole number from 1 to 2147483647, not 0"),
        (["--ema_decay", "1"], "--ema_decay must be a number in [0, 1), not 1"),
        (["--seed", "-1"], "--seed must be a whole number from 0 to 4294967295, not -1"),
        (["--normalize_factors", "[1,4"], "--normalize_factors must be 3 numbers from 1e-06 to 1e+06"),
        (["--normalize_factors", "[1,4]"], "--normalize_factors must be 3 numbers from"),
        (["--dp", "__import__('os').getpid()"], "--dp must be True or False, not"),
        (["--online", "perhaps"], "--online must be True or False, not 'perhaps'"),
        (["--dataset", "qm9_first_half"], "--dataset must be one of qm9, qm9_second_half"),
        (["--dataset", "geom"], "cannot train on --dataset geom; choose one of qm9"),
        (["--dataset", "qm9_second_half", "--remove_h"], "--remove_h is for --dataset qm9 alone"),
        (["--model", "symdiff", "--datadir", "nowhere"], "nowhere/qm9/train.npz is missing: make it with python -m"),
        *(([flag, value], f"{flag} must be {words}") for flag, value, words in REFUSED),
        (["--resume", "nowhere"], "no checkpoint nowhere/checkpoint.pt"),
        (["--conditioning", "mu", "alpha", "mu"], "--conditioning must be different values"),
        (["--diffusion_noise_schedule", "learned"], "learned by --diffusion_loss_type vlb alone"),
        (["--diffusion_noise_precision", "0.01"], "sigma 0.1) hides atom types and charges divided by 4"),
        (["--diffusion_noise_schedule", "cosine", "--diffusion_steps", "9"], "cosine: raise --diffusion_steps"),
        (
            ["--sampler", "euler"],
            "--sampler of diffusion is one of ancestral, ddim, sde-dpm++, dpm++, heun, euler-maruyama",
        ),
        (["--sampling_steps", "0"], "--sampling_steps must be a whole number from 1"),
        (["--sampler", "heun", "--sampling_steps", "1"], "--sampling_steps must be at least 2 with --sampler heun"),
        (["--stochasticity", "0.5"], "--stochasticity of --sampler ancestral is 1, not 0.5"),
        (["--normalize_factors", "[1,4,1000]"], "lower --diffusion_noise_precision or --normalize_factors"),
    ],
)
def test_a_mistake_is_one_line(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, *flags)


def test_geom_refuses_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for flags in (("--model", "symdiff"), ("--model", "egnn_dynamics")):
        line = refused(capsys, *flags, geom=True)
        assert "no ./data/geom/geom_drugs_30.npy: make it with `python -m symdiff_plugin.data.geom convert`" in line
    assert "no mine.npy: make it" in refused(capsys, "--data_file", "mine.npy", geom=True)
    assert "--split must be one of official, molecule, not random" in refused(capsys, "--split", "random", geom=True)
    assert "--split_seed must be a whole number from 0" in refused(capsys, "--split_seed", -1, geom=True)
    assert "unrecognized arguments: --split" in refused(capsys, "--split", "molecule")
    assert "--conditioning needs QM9" in refused(capsys, "--conditioning", "alpha", geom=True)
    assert "cannot train on --dataset qm9" in refused(capsys, "--dataset", "qm9", geom=True)


def test_a_corrupt_split_is_one_line(qm9_slice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "qm9").mkdir()
    for split in ("train", "valid", "test"):
        content = (qm9_slice / f"qm9/{split}.npz").read_bytes()
        (tmp_path / f"qm9/{split}.npz").write_bytes(content[: len(content) // 2] if split == "valid" else content)
    line = refused(capsys, "--model", "symdiff", "--datadir", tmp_path)
    assert f"{tmp_path}/qm9/valid.npz is corrupt" in line


def test_edms_model_is_told_where_qm9_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    parse("--datadir", "nowhere")
    (line,) = capsys.readouterr().err.splitlines()
    assert "python -m symdiff_plugin.data.qm9 --datadir nowhere" in line


def test_without_exit_on_error_a_mistake_is_an_exception() -> None:
    parser = edm_parser()
    parser.exit_on_error = False
    with pytest.raises(argparse.ArgumentError, match="must be one of egnn_dynamics"):
        parse_args(parser, ["--model", "x"])

"""The plugin's flags on a parser like EDM's; nothing of EDM is needed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

from symdiff_plugin.presets import EGNN_BASELINES, PRESETS, get_architecture
from symdiff_plugin.process import probabilistic_model
from symdiff_plugin.process.sampler import KINDS, Sampler
from symdiff_plugin.training import arguments, checkpoint, flag_table
from symdiff_plugin.training.arguments import ARCHITECTURE_FIELDS, parse_args
from symdiff_plugin.training.debug_checks import checking, enable_checks

# What is no flag: which checkpoint a run goes on from, what that changed, and which data it is of.
RECORDED = ("resume_from", "resumed", "data_sha256")


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


@pytest.fixture
def data(qm9_slice: Path) -> tuple[str, str]:
    return "--datadir", str(qm9_slice)


def refused(capsys: pytest.CaptureFixture[str], *argv: object, geom: bool = False) -> str:
    """The one line that a mistake ends in."""
    with pytest.raises(SystemExit) as stop:
        parse(*argv, geom=geom)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("main_qm9.py: error: ")
    return line


def test_edms_model_keeps_edms_defaults() -> None:
    before = vars(edm_parser().parse_args([]))
    after = vars(parse())
    assert {name: after[name] for name in before} == before
    ours = {"seed", "all_classes", "keep_checkpoints", "debug_checks", *probabilistic_model.KINDS}
    assert set(after) - set(before) == {*ours, *KINDS, *RECORDED}
    assert after["flow_sigma"] is after["score_weighting"] is None


@pytest.mark.parametrize("model", ["symdiff_tiny", "gnn_dynamics", "egnn_dynamics"])
def test_a_flag_that_does_nothing_for_the_model_is_refused(
    model: str, data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every flag of EDM's networks with the plugin's, every one of the plugin's with EDM's, by one rule."""
    words = {"aggregation_method": "sum", "frame": "haar", "precision": "bf16", "compat": "paper", "mlp_dropout": "0.5"}
    words |= {"group": "so3", "base": "pca"}
    flags = {"compat": "--symdiff_compat"}
    parser = edm_parser()
    arguments._add_flags(parser)
    there = {action.dest for action in parser._actions}
    idle = [name for name in flag_table.FLAGS if name in there and not flag_table.concerns(name, model)]
    assert len(idle) == {"symdiff_tiny": 10, "gnn_dynamics": 31, "egnn_dynamics": 27}[model], idle
    for name in idle:
        flag = flags.get(name, f"--{name}")
        value = words.get(name) or ("off" if name == "compile" else "1")
        line = refused(capsys, "--model", model, flag, value, *data)
        assert f"{flag}: for " in line
        assert f"alone, not for --model {model}; leave it out" in line


@pytest.mark.parametrize("model", [("symdiff_h_tiny",), ("dit_tiny",), ("symdiff_tiny", "--frame", "haar")])
def test_f_thetas_flags_are_refused_where_there_is_none(
    model: tuple[str, ...], data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "--model", *model, "--enc_depth", "2", "--noise_std", "0.5", "--f_theta_lr", "0.1", *data)
    assert "--enc_depth, --noise_std, --f_theta_lr: of f_theta, which" in line
    assert parse("--model", "symdiff_tiny", "--noise_std", "0.5", *data).noise_std == 0.5


def test_edms_models_keep_every_checkpoint_as_upstream() -> None:
    assert parse().keep_checkpoints
    assert not parse("--keep_checkpoints", "False").keep_checkpoints


@pytest.mark.parametrize("flags", [(), ("--debug_checks",)])
def test_the_checks_are_made_if_asked_for(flags: tuple[str, ...]) -> None:
    try:
        parse(*flags)
        assert checking() == bool(flags)
    finally:
        enable_checks(False)


def test_a_baselines_flags_are_accepted() -> None:
    for flags in EGNN_BASELINES.values():
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value).replace(" ", ""))]
        args = parse(*words)
        assert {name: getattr(args, name) for name in flags} == flags


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_brings_its_settings(name: str, data: tuple[str, str], tmp_path: Path) -> None:
    torch.save({"dynamics.weight": torch.zeros(1)}, tmp_path / "weights.npy")
    start = ("--init_from", tmp_path / "weights.npy") if PRESETS[name].starts_from else ()
    args = vars(parse("--model", name, *start, *data))
    for field in ARCHITECTURE_FIELDS:
        assert args[field] == getattr(PRESETS[name].architecture, field)
    for flag, value in PRESETS[name].training.flags().items():
        assert args[flag] == value
    assert args["exp_name"] == name


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ((), Sampler("ancestral", 500, "time", 1.0)),
        (("--model", "symdiff"), Sampler("ancestral", 1000, "time", 1.0)),
        (("--model", "symdiff_tiny"), Sampler("sde-dpm++", 50, "logsnr", 1.0)),
        (("--model", "symdiff_tiny", "--sampler", "ancestral"), Sampler("ancestral", 1000, "time", 1.0)),
        (("--sampler", "ddim", "--sampling_steps", "9", "--step_grid", "karras", "--stochasticity", "0.5"),
         Sampler("ddim", 9, "karras", 0.5)),
    ],
)  # fmt: skip
def test_the_samples_of_the_papers_models_are_edms(flags: tuple, wanted: Sampler, data: tuple[str, str]) -> None:
    args = parse(*flags, *data)
    assert Sampler.of(vars(args), args.diffusion_steps) == wanted


def test_the_group_and_the_base_are_flags_of_what_is_symmetrised(
    data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    args = parse("--model", "symdiff", "--group", "so3", "--base", "pca", *data)
    architecture = get_architecture(args.model, **arguments.architecture_overrides(args))
    assert architecture == get_architecture("symdiff", group="so3", base="pca")
    assert parse("--model", "symdiff_pca", *data).base == "pca"
    line = refused(capsys, "--model", "dit", "--group", "so3", *data)
    assert "group='so3' is for symmetrised models of the paper, not for frame='none'" in line
    assert "must be one of haar, pca" in refused(capsys, "--model", "symdiff", "--base", "svd", *data)


def test_symdiff_trains_with_the_papers_settings(data: tuple[str, str]) -> None:
    args = parse("--model", "symdiff", *data)
    assert (args.lr, args.weight_decay, args.batch_size, args.n_epochs) == (2e-4, 1e-12, 256, 4350)
    assert (args.clip_norm, args.ema_decay, args.diffusion_steps) == (2.0, 0.9999, 1000)
    assert args.normalize_factors == [1, 4, 10]


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (["--lr", "0.01"], "lr", 0.01),
        (["--lr=0.01"], "lr", 0.01),
        (["--n_epochs", "200"], "n_epochs", 200),  # EDM's default, given
        (["--hidden_size", "768"], "hidden_size", 768),
        (["--hidden", "768"], "hidden_size", 768),  # argparse's abbreviation
        (["--K", "7"], "K", 7),
        (["--clip_norm", "inf"], "clip_norm", float("inf")),
        (["--precision", "bf16"], "precision", "bf16"),
        (["--symdiff_compat", "release"], "compat", "release"),
        (["--normalize_factors", "[1,8,1]"], "normalize_factors", [1, 8, 1]),
        (["--data_augmentation", "True"], "data_augmentation", True),
        (["--exp_name", "mine"], "exp_name", "mine"),
        (["--online", "False"], "online", False),
        (["--online", "true"], "online", True),
        (["--all_classes"], "all_classes", True),
        (["--fused", "False"], "fused", False),
        ([], "compile", "off"),
        (["--compile"], "compile", "default"),
        (["--compile", "reduce-overhead"], "compile", "reduce-overhead"),
        (["--keep_checkpoints", "True"], "keep_checkpoints", True),
        ([], "keep_checkpoints", False),
        (["--no-cuda"], "dp", False),
    ],
)
@pytest.mark.parametrize("model", [["--model", "symdiff"], ["--model=symdiff"], ["--mod", "symdiff"]])
def test_an_explicit_flag_wins_wherever_it_stands(
    model: list[str], flags: list[str], name: str, value: object, data: tuple[str, str]
) -> None:
    assert getattr(parse(*model, *flags, *data), name) == value
    assert getattr(parse(*data, *flags, *model), name) == value


def test_the_last_of_two_models_counts(data: tuple[str, str]) -> None:
    assert parse("--model", "dit", "--model", "symdiff_minus", *data).depth == 10


def test_geom_has_its_own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/geom").mkdir(parents=True)
    (tmp_path / "data/geom/geom_drugs_30.npy").touch()
    args = parse("--model", "symdiff", geom=True)
    assert (args.lr, args.n_epochs, args.batch_size) == (1e-4, 55, 256)
    assert (args.data_file, args.split, args.split_seed) == ("./data/geom/geom_drugs_30.npy", "official", 0)


def test_the_seed_decides_every_generator(data: tuple[str, str]) -> None:
    draws = []
    for _ in range(2):
        parse("--model", "symdiff", "--seed", 7, *data)
        draws.append([float(torch.rand(())), checkpoint.rng_state()["numpy"][1].sum(), arguments.random.random()])
    assert draws[0] == draws[1]


def test_no_seed_leaves_the_generators_alone(data: tuple[str, str]) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    parse("--model", "symdiff", *data)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_arguments_are_plain_values_and_rebuild_the_architecture(data: tuple[str, str]) -> None:
    args = parse("--model", "symdiff_tiny", "--depth", 3, *data)
    again = argparse.Namespace(**json.loads(json.dumps(vars(args))))
    assert get_architecture(again.model, **arguments.architecture_overrides(again)).depth == 3


def test_the_datadir_of_a_preset_is_the_repositorys(capsys: pytest.CaptureFixture[str]) -> None:
    folder = arguments.default_datadir()
    assert folder == Path(__file__).resolve().parents[2] / "data"
    if not (folder / "qm9").exists():
        assert str(folder / "qm9") in refused(capsys, "--model", "symdiff")


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


FLOW = ("--probabilistic_model", "flow_matching")


@pytest.mark.parametrize("model", ["symdiff_tiny", "egnn_dynamics"])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((*FLOW, "--diffusion_steps", 8), "--diffusion_steps: for --probabilistic_model diffusion or score_matching"),
        ((*FLOW, "--score_weighting", "g2"), "--score_weighting: for --probabilistic_model score_matching alone"),
        ((*FLOW, "--flow_sigma", 0.1), "--flow_sigma hides atom types and charges divided by"),
        ((*FLOW, "--flow_sigma", 0), "--flow_sigma must be a number in (0, 0.1]"),
        ((*FLOW, "--sampler", "ddim"), "--sampler of flow_matching is one of euler"),
        (("--flow_sigma", 0.01), "--flow_sigma: for --probabilistic_model flow_matching alone, not for diffusion"),
        (("--probabilistic_model", "score_matching", "--diffusion_loss_type", "vlb"), "--diffusion_loss_type: for"),
        (("--probabilistic_model", "score_matching", "--diffusion_noise_schedule", "learned"), "learned is learned by"),
    ],
)
def test_what_does_nothing_for_the_process_is_refused(
    model: str, flags: tuple, words: str, data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    factors = ("--normalize_factors", "[1,4,10]")
    assert words in refused(capsys, "--model", model, *factors, *data, *flags)


@pytest.mark.parametrize("model", ["symdiff_tiny", "egnn_dynamics"])
def test_a_process_has_its_own_flags_and_sampler(model: str, data: tuple[str, str]) -> None:
    args = parse("--model", model, *FLOW, *data)
    assert (args.flow_sigma, args.score_weighting, args.sampler) == (1e-4, None, "euler")
    args = parse("--model", model, "--probabilistic_model", "score_matching", *data)
    assert (args.flow_sigma, args.score_weighting, args.sampler) == (None, "sigma2", "sde-dpm++")
    assert parse("--model", model, *FLOW, "--sampler", "heun", *data).sampler == "heun"

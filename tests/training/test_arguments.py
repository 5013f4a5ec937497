"""The plugin's flags: their defaults, what wins, and what goes with what."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from edm_flags import edm_parser, parse, refused

from symdiff_plugin.presets import EGNN_BASELINES, PRESETS, RECIPES, get_architecture
from symdiff_plugin.process import probabilistic_model
from symdiff_plugin.process.sampler import KINDS, Sampler
from symdiff_plugin.training import arguments, checkpoint, flag_table
from symdiff_plugin.training.arguments import ARCHITECTURE_FIELDS
from symdiff_plugin.training.debug_checks import checking, enable_checks

# What is no flag: which checkpoint a run goes on from, what that changed, and which data it is of.
RECORDED = ("resume_from", "resumed", "data_sha256")


def test_edms_model_keeps_edms_defaults() -> None:
    before = vars(edm_parser().parse_args([]))
    after = vars(parse())
    assert {name: after[name] for name in before} == before
    ours = {"seed", "all_classes", "keep_checkpoints", "checkpoint_minutes", "overwrite", "debug_checks"}
    ours |= {*probabilistic_model.KINDS}
    assert set(after) - set(before) == {*ours, *KINDS, *RECORDED}
    assert after["flow_sigma"] is after["score_weighting"] is None


@pytest.mark.parametrize("model", ["symdiff_tiny", "gnn_dynamics", "egnn_dynamics"])
def test_a_flag_that_does_nothing_for_the_model_is_refused(
    model: str, data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every flag of EDM's networks with the plugin's, every one of the plugin's with EDM's, by one rule."""
    words = {"aggregation_method": "sum", "frame": "haar", "precision": "bf16", "compat": "paper", "mlp_dropout": "0.5"}
    words |= {"group": "so3", "base": "pca", "recipe": "fast", "optimizer": "muon", "decay_shape": "sqrt"}
    flags = {"compat": "--symdiff_compat"}
    parser = edm_parser()
    arguments._add_flags(parser)
    there = {action.dest for action in parser._actions}
    idle = [name for name in flag_table.FLAGS if name in there and not flag_table.concerns(name, model)]
    assert len(idle) == {"symdiff_tiny": 10, "gnn_dynamics": 37, "egnn_dynamics": 33}[model], idle
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


def test_the_fast_recipe_is_a_set_of_defaults(data: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim, "Muon", object, raising=False)
    paper, fast = parse("--model", "symdiff", *data), parse("--model", "symdiff", "--recipe", "fast", *data)
    assert (paper.recipe, paper.optimizer, paper.warmup_steps, paper.decay, paper.f_theta_lr) == (
        "paper",
        "adamw",
        0,
        0,
        1,
    )
    changed = {name for name, value in vars(fast).items() if vars(paper)[name] != value}
    assert changed == {"recipe", *RECIPES["fast"]}
    assert {name: vars(fast)[name] for name in RECIPES["fast"]} == RECIPES["fast"]
    assert parse("--model", "symdiff", "--recipe", "fast", "--decay", "0", *data).decay == 0


def test_without_muon_the_fast_recipe_does_with_adamw(
    data: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    fast = parse("--model", "symdiff", "--recipe", "fast", *data)
    assert (fast.optimizer, fast.decay) == ("adamw", 0.3)
    assert "--optimizer muon needs PyTorch 2.9" in refused(capsys, "--model", "symdiff", "--optimizer", "muon", *data)


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

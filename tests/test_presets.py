import pytest
import torch

from symdiff_plugin import PRESETS, build_dynamics
from symdiff_plugin.presets import EGNN_BASELINES, EGNN_GEOM_BASELINES, command_line, get_architecture


def parameters(name):
    """(epsilon_theta with Psi, f_theta) in millions, on QM9: five atom types and the charge."""
    with torch.device("meta"):
        model = build_dynamics(name, in_node_nf=6)
    f_theta = sum(p.numel() for n, p in model.named_parameters() if n.startswith("f_theta."))
    return (sum(p.numel() for p in model.parameters()) - f_theta) / 1e6, f_theta / 1e6


@pytest.mark.parametrize(
    ("name", "backbone", "f_theta"),
    [
        ("symdiff", 29.0, 2.2),
        ("symdiff_star", 115.5, 7.7),
        ("symdiff_minus", 21.3, 2.2),
        ("symdiff_minus_minus", 11.5, 2.2),  # the paper prints 11.3: its sizes give 11.46
        ("symdiff_h", 29.0, 0),
        ("symdiff_pca", 29.0, 0),
        ("symdiff_pca_f", 29.0, 2.2),
        ("dit", 29.0, 0),
        ("dit_aug", 29.0, 0),
        ("dit_ft", 29.0, 2.2),
        ("dit_ft_freeze", 29.0, 2.2),
    ],
)
def test_parameter_counts(name, backbone, f_theta):
    counts = parameters(name)
    assert round(counts[0], 1) == backbone
    assert round(counts[1], 1) == f_theta


@pytest.mark.parametrize(("name", "total"), [("symdiff", 31.2), ("symdiff_star", 123.2), ("symdiff_minus", 23.5)])
def test_totals_are_the_papers(name, total):
    assert round(sum(parameters(name)), 1) == total


def test_training_settings_of_the_paper():
    flags = PRESETS["symdiff"].training_flags()
    assert (flags["lr"], flags["batch_size"], flags["n_epochs"]) == (2e-4, 256, 4350)
    assert (flags["weight_decay"], flags["clip_norm"], flags["ema_decay"]) == (1e-12, 2.0, 0.9999)
    assert (flags["diffusion_steps"], flags["normalize_factors"]) == (1000, [1, 4, 10])
    assert (flags["diffusion_noise_schedule"], flags["diffusion_noise_precision"]) == ("polynomial_2", 1e-5)
    assert flags["diffusion_loss_type"] == "l2"
    assert PRESETS["symdiff_star"].training_flags()["lr"] == 1e-4
    geom = PRESETS["symdiff"].training_flags("geom")
    assert (geom["lr"], geom["n_epochs"], geom["batch_size"]) == (1e-4, 55, 256)
    for name, frozen in (("dit_ft", False), ("dit_ft_freeze", True)):  # Appendix C.4
        flags = PRESETS[name].training_flags()
        assert (flags["n_epochs"], flags["lr"], flags["weight_decay"]) == (800, 1e-3, 2e-12)
        assert (flags["batch_size"], flags["ema_decay"], flags["clip_norm"]) == (256, 0.9999, 2.0)
        assert flags["freeze_epsilon"] is frozen
    assert [p for p in PRESETS if PRESETS[p].training.data_augmentation] == ["dit_aug", "dit_aug_tiny"]


# Tables 3, 5 and C.2 of the paper, as DESIGN has them: eps_theta's size, layers, heads; n_z, K; f_theta's size, layers,
# heads and decoder, for the models that have one.
SIZES = {
    "symdiff": (384, 12, 6, 184, 184, 128, 8, 4, 64),
    "symdiff_minus": (360, 10, 6, 180, 180, 128, 8, 4, 64),
    "symdiff_minus_minus": (294, 8, 6, 147, 147, 128, 8, 4, 64),
    "dit_ft": (384, 12, 6, 184, 184, 128, 8, 4, 64),
    "dit_ft_freeze": (384, 12, 6, 184, 184, 128, 8, 4, 64),
    "symdiff_star": (768, 12, 12, 382, 382, 216, 10, 8),
    "symdiff_h": (384, 12, 6, 184, 184),
    "dit": (384, 12, 6, 184, 184),
    "dit_aug": (384, 12, 6, 184, 184),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_the_paper(name):
    a = get_architecture(name)
    found = (a.hidden_size, a.depth, a.num_heads, a.xh_hidden_size, a.K)
    found += (a.enc_hidden_size, a.enc_depth, a.enc_num_heads, a.dec_hidden_features)
    assert found[: len(SIZES[name])] == SIZES[name]


@pytest.mark.parametrize("name", PRESETS)
def test_what_all_models_of_the_paper_have_in_common(name):
    """m_noise = 3 of standard deviation 1, both halves of SwiGLU twice the width, no dropout, integer steps."""
    a = get_architecture(name)
    assert (a.noise_dims, a.noise_std, a.mlp_ratio, a.enc_mlp_ratio, a.mlp_dropout) == (3, 1.0, 4.0, 4.0, 0.0)
    assert (a.time_scale, a.precision, a.compat) == (1000.0, "fp32", "paper")
    assert (a.group, a.base) == ("o3", "pca" if "pca" in name else "haar")
    assert a.frame == ("haar" if name in NO_F else "none" if name in PLAIN else "learned")


NO_F = {"symdiff_h", "symdiff_h_tiny", "symdiff_pca"}
PLAIN = {"dit", "dit_aug", "dit_tiny", "dit_aug_tiny"}


def test_egnn_baselines_of_table_6():
    sizes = {name: (flags["nf"], flags["n_layers"]) for name, flags in EGNN_BASELINES.items()}
    tiny = sizes.pop("edm_tiny")
    assert sizes == {"edm": (256, 9), "edm_plus": (256, 16), "edm_plus_plus": (332, 12)}
    assert all((EGNN_BASELINES[name]["batch_size"], EGNN_BASELINES[name]["lr"]) == (64, 1e-4) for name in sizes)
    assert tiny < sizes["edm"]


def test_egnn_baseline_of_edms_readme_on_geom():
    flags = EGNN_GEOM_BASELINES["edm"]
    assert (flags["nf"], flags["n_layers"], flags["batch_size"], flags["lr"]) == (256, 4, 64, 1e-4)
    assert (flags["n_epochs"], flags["test_epochs"], flags["n_stability_samples"]) == (3000, 1, 500)
    assert (flags["normalization_factor"], flags["ema_decay"]) == (1, 0.9999)
    assert command_line("edm", "geom")[:2] == ["--model", "egnn_dynamics"]
    assert command_line("symdiff", "geom") == command_line("symdiff") == ["--model", "symdiff"]
    with pytest.raises(ValueError, match=r"'edm_plus' for GEOM-Drugs.*edm_tiny"):
        command_line("edm_plus", "geom")


def test_f_theta_of_symdiff_star_is_half_as_wide_as_b3_says_and_80_in_the_release():
    assert get_architecture("symdiff_star").dec_hidden_features == get_architecture("symdiff_star").enc_hidden_size // 2
    assert get_architecture("symdiff_star", compat="release").dec_hidden_features == 80
    assert get_architecture("symdiff_star", compat="release", dec_hidden_features=90).dec_hidden_features == 90


def test_release_means_unscaled_time_unless_told_otherwise():
    assert get_architecture("symdiff").time_scale == 1000
    assert get_architecture("symdiff", compat="release").time_scale == 1
    assert get_architecture("symdiff", compat="release", time_scale=7.0).time_scale == 7


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_heads": 5}, "multiple of num_heads"),
        ({"precision": "fp16"}, "precision must be one of fp32, bf16"),
        ({"compat": "authors"}, "compat must be one of"),
        ({"xh_hidden_size": 384}, "xh_hidden_size"),
        ({"depth": 0}, "depth must be a whole number from 1"),
        ({"noise_std": float("nan")}, "noise_std must be a number in"),
        ({"mlp_dropout": 1.0}, "mlp_dropout must be a number in"),
        ({"hidden_size": 384.5}, "hidden_size must be a whole number"),
        ({"group": "O(3)"}, "group must be one of o3, so3"),
        ({"base": "svd"}, "base must be one of haar, pca"),
        ({"base": "pca", "compat": "release"}, "base='pca' is for symmetrised models of the paper, not for compat="),
        ({"group": "so3", "frame": "none"}, "group='so3' is for symmetrised models of the paper, not for frame='none'"),
    ],
)
def test_senseless_values_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        get_architecture("symdiff", **overrides)


def test_unknown_names_are_refused_with_the_list():
    with pytest.raises(ValueError, match=r"unknown preset 'egnn'.*symdiff_star"):
        build_dynamics("egnn", 6)
    with pytest.raises(TypeError, match=r"unknown override 'width'.*hidden_size"):
        build_dynamics("symdiff", 6, width=3)


@pytest.mark.parametrize(("name", "compat"), [("symdiff_h", "release"), ("dit", "release_fix_qr")])
def test_the_release_has_no_model_of_these(name, compat):
    with pytest.raises(ValueError, match="is for the released symdiff models"):
        build_dynamics(name, 6, compat=compat)

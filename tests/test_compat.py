"""The authors' release: small runs in its form with the outputs of its network, and the naive reference."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from molecules import qm9_batch, randomise

from symdiff_plugin import PRESETS, build_dynamics
from symdiff_plugin.common.weights import read_state_dict
from symdiff_plugin.compat import load_release, run_arguments, whole_model
from symdiff_plugin.model import reference
from symdiff_plugin.training.args_pickle import ArgumentsError
from symdiff_plugin.training.arguments import architecture_overrides

RUNS = Path(__file__).parent / "files" / "release_run"
COMPATS = {"symdiff": "release", "symdiff_fix_qr": "release_fix_qr", "dit": "release"}

BACK = {
    "pair_embedding.means": "gaussian_embedder.means.weight",
    "pair_embedding.stds": "gaussian_embedder.stds.weight",
}


def released(model, prefix="dynamics."):
    """The state dict that the release would have saved for ``model``, written by its documented names."""
    out = {}
    for name, value in model.state_dict().items():
        if name in BACK:
            out[prefix + BACK[name]] = value[None]
        elif name.startswith("pair_embedding.proj."):
            out[prefix + name.replace("pair_embedding.proj.", "pos_embedder.")] = value
        elif name.startswith("f_theta.fc"):
            out[prefix + name.replace("f_theta.", "gamma_dec.")] = value
        elif name.startswith("f_theta.x_embedder."):
            out[prefix + name.replace("f_theta.", "gamma_enc.")] = value
        elif name.startswith("f_theta.dit."):
            out[prefix + name.replace("f_theta.dit.", "gamma_enc.")] = value
        elif name.startswith("dit."):
            out[prefix + name.replace("dit.", "k.", 1)] = value
        else:
            out[prefix + name] = value
    if prefix:
        out["gamma.gamma"], out["buffer"] = torch.zeros(1001), torch.zeros(1)
    return out


def of_run(name: str, **overrides) -> tuple[torch.Tensor, torch.Tensor]:
    """The outputs of a released network and ours, for the same weights, inputs and draws."""
    args = run_arguments(RUNS / name)
    model = build_dynamics(args.model, 6, **{**architecture_overrides(args), **overrides})
    load_release(model, read_state_dict(RUNS / name / "generative_model_ema.npy"))
    given = {key: torch.from_numpy(value) for key, value in np.load(RUNS / name / "expected.npz").items()}
    theirs, draws = given["out"], {key: given[key] for key in ("R0", "eta") if key in given}
    with torch.no_grad():
        return model.given_draws(given["t"], given["xh"], given["node_mask"], **draws), theirs


def relative(pair: tuple[torch.Tensor, torch.Tensor]) -> float:
    ours, theirs = pair
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("name", COMPATS)
def test_released_runs_give_the_released_networks_outputs(name):
    pair = of_run(name)
    assert relative(pair) < 1e-6
    torch.testing.assert_close(*pair, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("symdiff", {"compat": "paper"}),
        ("symdiff", {"compat": "release_fix_qr"}),
        ("symdiff", {"time_scale": 1000.0}),
        ("symdiff_fix_qr", {"compat": "release"}),
        ("dit", {"compat": "paper"}),
    ],
)
def test_that_comparison_tells_other_networks_apart(name, other):
    assert relative(of_run(name, **other)) > 0.01


@pytest.mark.parametrize("name", COMPATS)
def test_arguments_of_a_released_run_in_our_terms(name):
    args = run_arguments(RUNS / name)
    assert args.compat == COMPATS[name]
    assert (args.model, args.time_scale, args.precision) == (name.removesuffix("_fix_qr"), 1.0, "fp32")
    assert (args.hidden_size, args.K, args.batch_size, args.diffusion_steps) == (48, 20, 256, 50)
    assert "of the authors' release" in args.recognised


def rewritten(folder: Path, name: str, **changes) -> Path:
    """A released run's folder with some of its arguments changed (None takes one out)."""
    with (RUNS / name / "args.pickle").open("rb") as file:
        args = pickle.load(file)
    for key, value in changes.items():
        if value is None:
            delattr(args, key)
        else:
            setattr(args, key, value)
    (folder / "args.pickle").write_bytes(pickle.dumps(args))
    return folder


def test_a_released_run_of_the_papers_sizes_is_called_by_its_preset(tmp_path):
    star = {
        "hidden_size": 768, "depth": 12, "num_heads": 12, "xh_hidden_size": 382, "K": 382, "enc_hidden_size": 216,
        "enc_depth": 10, "enc_num_heads": 8, "dec_hidden_features": 80,
    }  # fmt: skip
    args = run_arguments(rewritten(tmp_path, "symdiff", **star))
    assert args.model == "symdiff_star"
    assert PRESETS["symdiff_star"].label in args.recognised
    assert "own size" not in args.recognised


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "other_dynamics"}, "--model other_dynamics, which is not known here"),
        ({"model": None}, "--model None, which is not known here"),
        ({"mlp_type": "gelu"}, "the release's --mlp_type gelu"),
        ({"enc_concat_h": True}, "the release's --enc_concat_h True"),
        ({"conditioning": ["alpha"]}, "the release's --conditioning"),
        ({"K": None}, "without --K is no run of the authors' release"),
        ({"num_heads": 5}, "its sizes make no model"),
        ({"depth": "twelve"}, "its sizes make no model"),
    ],
)
def test_released_runs_that_cannot_be_reproduced_are_refused(tmp_path, changes, message):
    with pytest.raises(ArgumentsError, match=message):
        run_arguments(rewritten(tmp_path, "symdiff", **changes))


def test_edms_own_old_runs_get_what_they_lack(tmp_path):
    args = run_arguments(rewritten(tmp_path, "symdiff", model="egnn_dynamics", normalization_factor=None))
    assert (args.model, args.normalization_factor, args.recognised) == ("egnn_dynamics", 1, "EDM's egnn_dynamics")


def test_a_whole_model_keeps_edms_own_entries(pair):
    source, target = pair
    state = released(source)
    renamed = whole_model(state)
    assert torch.equal(renamed["gamma.gamma"], state["gamma.gamma"])
    assert {name.removeprefix("dynamics.") for name in renamed} == {*target.state_dict(), "gamma.gamma", "buffer"}


@pytest.fixture(params=["release", "release_fix_qr"])
def pair(request):
    torch.manual_seed(0)
    make = lambda: build_dynamics("symdiff_tiny", 6, depth=2, enc_depth=1, compat=request.param).double()  # noqa: E731
    return randomise(make()), make()


@pytest.mark.parametrize("prefix", ["dynamics.", ""])
def test_released_checkpoint_gives_the_releases_outputs(pair, prefix):
    source, target = pair
    load_release(target, released(source, prefix))
    t, xh, mask = qm9_batch(length=33)
    draws = source.draw(xh, mask)
    out = target.given_draws(t, xh, mask, **draws)
    theirs = reference.symdiff(source, t, xh, mask, None, draws["R0"], draws["eta"])
    torch.testing.assert_close(out, theirs, rtol=1e-9, atol=1e-10)


def test_an_unused_final_layer_of_the_encoder_is_passed_over(pair):
    source, target = pair
    load_release(target, {**released(source), "dynamics.gamma_enc.final_layer.linear.weight": torch.zeros(2, 2)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("dynamics.k.blocks.1.attn.qkv.bias"), r"qkv\.bias should be \(384,\) and is absent"),
        (lambda s: s.update({"dynamics.egnn.x": torch.zeros(1)}), "unexpected entry 'dynamics.egnn.x'"),
        (lambda s: s.update({"elsewhere": torch.zeros(1)}), "unexpected entry 'elsewhere'"),
        (lambda s: s.update({"dynamics.k.blocks.7.attn.qkv.bias": torch.zeros(1)}), "should be absent"),
        (lambda s: s.update({"dynamics.xh_embedder.bias": torch.zeros(3)}), r"should be .* and is \(3,\)"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused_and_change_nothing(pair, change, message):
    source, target = pair
    state = released(source)
    change(state)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_release(target, state)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())

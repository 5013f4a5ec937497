import pytest
import reference
import torch
from molecules import qm9_batch, randomise

from symdiff_plugin import build_dynamics
from symdiff_plugin.compat import load_release

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


@pytest.fixture
def pair():
    torch.manual_seed(0)
    make = lambda: build_dynamics("symdiff_tiny", 6, depth=2, enc_depth=1, compat="release").double()  # noqa: E731
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
        (lambda s: s.pop("dynamics.k.blocks.1.attn.qkv.bias"), r"no dit\.blocks\.1\.attn\.qkv\.bias"),
        (lambda s: s.update({"dynamics.egnn.x": torch.zeros(1)}), "unexpected entry 'dynamics.egnn.x'"),
        (lambda s: s.update({"elsewhere": torch.zeros(1)}), "unexpected entry 'elsewhere'"),
        (lambda s: s.update({"dynamics.k.blocks.7.attn.qkv.bias": torch.zeros(1)}), "which the model lacks"),
        (lambda s: s.update({"dynamics.xh_embedder.bias": torch.zeros(3)}), "is \\(3,\\) in the checkpoint"),
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

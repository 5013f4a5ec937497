import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from molecules import model_and_batch, qm9_batch, randomise

from symdiff_plugin import PRESETS, SymDiffDynamics, build_dynamics
from symdiff_plugin.model import reference
from symdiff_plugin.model.dynamics import DiTDynamics
from symdiff_plugin.model.groups import sample_haar
from symdiff_plugin.presets import get_architecture


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("symdiff_tiny", {}),
        ("symdiff_tiny", {"compat": "release"}),
        ("symdiff_tiny", {"time_scale": 1.0, "noise_dims": 5, "mlp_ratio": 3.0}),
        ("symdiff_h_tiny", {}),
        ("dit_tiny", {}),
        ("dit_aug_tiny", {}),
    ],
)
def test_outputs_and_gradients_against_the_naive_reference(name, overrides, context):
    model, t, xh, mask, extra = model_and_batch(name, context, **overrides)
    draws = {"R0": None, "eta": None, **model.draw(xh, mask)}
    ours = model.given_draws(t, xh, mask, extra, **draws)
    theirs = reference.symdiff(model, t, xh, mask, extra, draws["R0"], draws["eta"])
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    weight = torch.randn_like(ours)
    parameters = dict(model.named_parameters())
    a = torch.autograd.grad((ours * weight).sum(), parameters.values())
    b = torch.autograd.grad((theirs * weight).sum(), parameters.values())
    for name, x, y in zip(parameters, a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-7, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("name", ["symdiff_tiny", "symdiff_h_tiny", "dit_tiny"])
def test_float32_is_the_float64_model_to_rounding(name):
    model, t, xh, mask, _ = model_and_batch(name)
    draws = model.draw(xh, mask)
    exact = model.given_draws(t, xh, mask, **draws)
    single = copy.deepcopy(model).float()
    out = single.given_draws(t.float(), xh.float(), mask.float(), **{k: v.float() for k, v in draws.items()})
    assert out.dtype == torch.float32
    assert (out.double() - exact).norm() < 1e-3 * exact.norm()


@pytest.mark.parametrize("name", PRESETS)
def test_predicts_zero_at_the_start(name):
    torch.manual_seed(0)
    model = build_dynamics(name, 6, depth=1, enc_depth=1)
    t, xh, mask = qm9_batch(dtype=torch.float32)
    assert model._forward(t, xh, mask, None, None).abs().max() == 0


@pytest.mark.parametrize("name", ["symdiff_tiny", "symdiff_h_tiny", "dit_tiny"])
def test_padding_changes_nothing_and_stays_zero(name):
    model, t, xh, mask, _ = model_and_batch(name)
    draws = model.draw(xh, mask)
    out = model.given_draws(t, xh, mask, **draws)
    assert (out * (1 - mask)).abs().max() == 0
    _, xh2, mask2 = qm9_batch(length=41)
    if "eta" in draws:
        draws["eta"] = torch.nn.functional.pad(draws["eta"], (0, 0, 0, 41 - xh.shape[1]))
    wide = model.given_draws(t, xh2, mask2, **draws)
    torch.testing.assert_close(wide[:, : xh.shape[1]], out, rtol=1e-12, atol=1e-12)
    assert wide[:, xh.shape[1] :].abs().max() == 0


@pytest.mark.parametrize("name", ["symdiff_tiny", "symdiff_h_tiny", "dit_tiny"])
def test_zero_centre_of_mass(name):
    model, t, xh, mask, _ = model_and_batch(name)
    out = model._forward(t, xh, mask, None, None)
    assert out[..., :3].abs().max() > 0.1
    assert out[..., :3].sum(1).abs().max() < 1e-10


@pytest.mark.parametrize("name", ["symdiff_tiny", "dit_tiny"])
def test_permuting_atoms_permutes_outputs(name):
    model, t, xh, mask, _ = model_and_batch(name)
    draws = model.draw(xh, mask)
    order = torch.randperm(xh.shape[1])
    permuted = {**draws, **({"eta": draws["eta"][:, order]} if "eta" in draws else {})}
    out = model.given_draws(t, xh, mask, **draws)
    again = model.given_draws(t, xh[:, order], mask[:, order], **permuted)
    torch.testing.assert_close(again, out[:, order], rtol=1e-9, atol=1e-10)


def test_molecules_do_not_depend_on_their_batch():
    model, t, xh, mask, _ = model_and_batch()
    draws = model.draw(xh, mask)
    out = model.given_draws(t, xh, mask, **draws)
    for i in (0, 3, 7):
        row = slice(i, i + 1)
        alone = model.given_draws(t[row], xh[row], mask[row], R0=draws["R0"][row], eta=draws["eta"][row])
        torch.testing.assert_close(alone, out[row], rtol=1e-9, atol=1e-10)


def test_forward_is_given_draws_at_seeded_draws():
    model, t, xh, mask, _ = model_and_batch()
    torch.manual_seed(5)
    out = model._forward(t, xh, mask, torch.ones(1), None)
    torch.manual_seed(5)
    assert torch.equal(model.given_draws(t, xh, mask, **model.draw(xh, mask)), out)
    torch.manual_seed(6)
    assert not torch.equal(model(t, xh, mask), out)


def test_noise_is_centred_in_the_paper_and_plain_in_the_release():
    _, xh, mask = qm9_batch(count=1)
    xh, mask = xh.expand(4000, -1, -1), mask.expand(4000, -1, -1).clone()
    for compat, variance in (("paper", 1 - 1 / mask[0].sum()), ("release", torch.tensor(1.0))):
        torch.manual_seed(0)
        model = build_dynamics("symdiff_tiny", 6, noise_std=2.0, compat=compat)
        eta = model.draw(xh, mask)["eta"]
        assert (eta * (1 - mask)).abs().max() == 0
        assert (eta.sum(1).abs().max() < 1e-10) == (compat == "paper")
        real = eta[:, mask[0, :, 0] != 0]
        assert abs(real.var().item() / (4 * variance.item()) - 1) < 0.05


@pytest.mark.parametrize("of_xh", [torch.float32, torch.float64])
@pytest.mark.parametrize("of_mask", [torch.bool, torch.float32, torch.float64])
def test_draws_are_of_the_positions_dtype(of_xh, of_mask):
    _, xh, mask = qm9_batch(2)
    draws = build_dynamics("symdiff_tiny", 6, depth=1, enc_depth=1).draw(xh.to(of_xh), mask.to(of_mask))
    assert {name: value.dtype for name, value in draws.items()} == {"R0": of_xh, "eta": of_xh}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_are_haars_and_then_centred_normal_ones(dtype):
    _, xh, mask = qm9_batch(3, dtype=dtype)
    torch.manual_seed(4)
    draws = build_dynamics("symdiff_tiny", 6, depth=1, enc_depth=1, noise_std=0.5).draw(xh, mask)
    torch.manual_seed(4)
    build_dynamics("symdiff_tiny", 6, depth=1, enc_depth=1)  # draws its weights
    assert torch.equal(draws["R0"], sample_haar(3, dtype=dtype))
    noise = 0.5 * torch.randn(3, xh.shape[1], 3, dtype=dtype) * mask
    centred = noise - noise.sum(1, keepdim=True) / mask.sum(1, keepdim=True) * mask
    torch.testing.assert_close(draws["eta"], centred, rtol=0, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["symdiff_tiny", "symdiff_h_tiny", "dit_tiny"])
def test_every_parameter_gets_a_finite_gradient(name):
    model, t, xh, mask, extra = model_and_batch(name, context=1)
    model._forward(t, xh, mask, None, extra).square().sum().backward()
    for parameter_name, p in model.named_parameters():
        assert p.grad is not None, parameter_name
        assert torch.isfinite(p.grad).all(), parameter_name
        assert p.grad.abs().max() > 0, parameter_name


def test_gradients_are_finite_for_coinciding_atoms_and_single_atoms():
    model, t, xh, mask, _ = model_and_batch()
    xh, mask = xh.clone(), mask.clone()
    xh[0, :, :3] = 0  # every atom at the origin: Psi's distances all vanish
    xh[1], mask[1, 1:] = 0, 0  # one atom
    xh.requires_grad_()
    model._forward(t, xh, mask, None, None).square().sum().backward()
    assert torch.isfinite(xh.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_context_matters_and_is_no_output():
    model, t, xh, mask, extra = model_and_batch(context=2)
    draws = model.draw(xh, mask)
    out = model.given_draws(t, xh, mask, extra, **draws)
    assert out.shape == xh.shape
    assert (model.given_draws(t, xh, mask, 2 * extra, **draws) - out).abs().max() > 1e-3


def test_deepcopy_is_independent_and_equal():
    model, t, xh, mask, _ = model_and_batch()
    draws = model.draw(xh, mask)
    out = model.given_draws(t, xh, mask, **draws)
    twin = copy.deepcopy(model)
    assert torch.equal(twin.given_draws(t, xh, mask, **draws), out)
    randomise(twin, seed=9)
    assert torch.equal(model.given_draws(t, xh, mask, **draws), out)
    assert not torch.equal(twin.given_draws(t, xh, mask, **draws), out)


def test_replicas_of_data_parallel_do_not_mix_up_their_masks():
    """EDM wraps models in DataParallel, whose replicas are shallow copies that run in threads."""
    model, t, xh, mask, _ = model_and_batch()
    draws = model.draw(xh, mask)
    out = model.given_draws(t, xh, mask, **draws)

    def run(i):
        rows = slice(i, i + 1)
        return copy.copy(model).given_draws(t[rows], xh[rows], mask[rows], **{k: v[rows] for k, v in draws.items()})

    with ThreadPoolExecutor(4) as pool:
        for i, alone in enumerate(pool.map(run, [*range(8)] * 3)):
            torch.testing.assert_close(alone[0], out[i % 8], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(xh=a["xh"][..., :-1]), r"xh must be \(B, N, 9\)"),
        (lambda a: a.update(node_mask=a["node_mask"][:-1]), "node_mask must be"),
        (lambda a: a.update(context=torch.zeros(8, 29, 1)), "context_node_nf = 0, but was given context of shape"),
        (lambda a: a.update(t=torch.zeros(3, 1)), "t must be"),
        (lambda a: a.update(R0=torch.eye(3)), r"R0 must be \(8, 3, 3\), not \(3, 3\)$"),
        (lambda a: a.update(R0=None), r"R0 must be \(8, 3, 3\), not None$"),
        (lambda a: a.update(eta=None), r"eta must be \(8, 25, 3\), not None$"),
        (lambda a: a.update(eta=a["eta"][..., :2]), r"eta must be \(8, 25, 3\), not \(8, 25, 2\)$"),
    ],
)
def test_wrong_shapes_are_refused(change, message):
    model, t, xh, mask, _ = model_and_batch()
    arguments = {"t": t, "xh": xh, "node_mask": mask, "context": None, **model.draw(xh, mask)}
    change(arguments)
    with pytest.raises(ValueError, match=message):
        model.given_draws(**arguments)


NUMBERS = "t must be times in .0, 1., not torch.int64"


@pytest.mark.parametrize("name", ["symdiff_tiny", "dit_tiny"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(node_mask=a["node_mask"][..., 0]), r"node_mask must be \(8, 25, 1\), not \(8, 25\)"),
        (lambda a: a.update(node_mask=a["node_mask"][:, :-1]), r"node_mask must be \(8, 25, 1\), not \(8, 24, 1\)"),
        (lambda a: a.update(xh=a["xh"][0]), r"xh must be \(B, N, 9\)"),
        (lambda a: a.update(t=torch.full((8, 1), 500)), NUMBERS),
        (lambda a: a.update(t=torch.tensor(500)), NUMBERS),
        (lambda a: a.update(t=a["t"][:3]), r"t must be \(8, 1\) or have one element, not \(3, 1\)"),
        (lambda a: a.update(xh=a["xh"].float()), "xh must be torch.float64, as the weights are, not torch.float32"),
        (lambda a: a.update(context=a["context"].int()), "context must be torch.float64, as the weights are, not"),
        (lambda a: a.update(context=a["context"][:, 0]), r"context_node_nf = 2, but was given context of shape \(8, 2"),
        (lambda a: a.update(context=a["context"][:, 1:]), r"was given context of shape \(8, 24, 2\)"),
        (lambda a: a.update(context=None), "context_node_nf = 2, but was given no context"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_drawn(name, change, message):
    model, t, xh, mask, extra = model_and_batch(name, context=2)
    arguments = {"t": t, "xh": xh, "node_mask": mask, "context": extra}
    change(arguments)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        model._forward(**arguments)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_a_mask_may_be_of_any_dtype(dtype):
    model, t, xh, mask, _ = model_and_batch()
    torch.manual_seed(5)
    out = model._forward(t, xh, mask)
    torch.manual_seed(5)
    assert torch.equal(model._forward(t, xh, mask.to(dtype)), out)


def test_missing_context_is_refused():
    model, t, xh, mask, _ = model_and_batch(context=1)
    with pytest.raises(ValueError, match="context_node_nf = 1, but was given no context"):
        model._forward(t, xh, mask, None, None)


@pytest.mark.parametrize("name", ["symdiff", "symdiff_h", "dit"])
def test_meta_device_runs_forward_and_backward(name):
    with torch.device("meta"):
        model = build_dynamics(name, 6)
        xh, mask, t = torch.randn(4, 20, 9), torch.ones(4, 20, 1), torch.rand(4, 1)
    out = model._forward(t, xh, mask, None, None)
    assert out.is_meta
    assert out.shape == xh.shape
    out.sum().backward()
    assert all(p.grad.is_meta for p in model.parameters())


def test_class_follows_the_preset():
    for kind, name in ((DiTDynamics, "dit_tiny"), (SymDiffDynamics, "symdiff_tiny")):
        assert kind(get_architecture(name), 6).context_node_nf == 0
    assert isinstance(build_dynamics("symdiff_h_tiny", 6), SymDiffDynamics)
    assert not isinstance(build_dynamics("dit_tiny", 6), SymDiffDynamics)


@pytest.mark.parametrize("name", ["symdiff_tiny", "dit_tiny"])
def test_initial_weights_of_what_is_around_the_transformers(name):
    """Xavier-uniform, and biases of zero."""
    torch.manual_seed(0)
    model = build_dynamics(name, 6, depth=1, enc_depth=1)
    names = ["xh_embedder", "pair_embedding.proj"]
    names += ["f_theta.x_embedder", "f_theta.fc1", "f_theta.fc2"] if name == "symdiff_tiny" else []
    for linear in map(model.get_submodule, names):
        bound = (6 / sum(linear.weight.shape)) ** 0.5
        assert 0.95 * bound < linear.weight.abs().max() <= bound
        assert abs(linear.weight.std() * 3**0.5 / bound - 1) < 0.1
        assert (linear.bias == 0).all()


def test_dropout_is_that_of_the_architecture_in_both_networks():
    model = build_dynamics("symdiff_tiny", 6, depth=1, enc_depth=1, mlp_dropout=0.25)
    rates = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert rates == [0.25, 0.25]
    assert model.f_theta.dit.blocks[0].mlp.fc2.in_features == 2 * 64
    small = build_dynamics("symdiff_tiny", 6, depth=1, enc_depth=1, enc_mlp_ratio=2.0)
    assert small.f_theta.dit.blocks[0].mlp.fc2.in_features == 64


@pytest.mark.parametrize(
    ("name", "compat"),
    [
        ("symdiff_tiny", "paper"), ("symdiff_tiny", "release"), ("symdiff_tiny", "release_fix_qr"),
        ("dit_tiny", "paper"), ("dit_tiny", "release"),
    ],
)  # fmt: skip
def test_a_model_says_whether_its_outputs_depend_on_the_padding(name, compat):
    model, t, xh, mask, _ = model_and_batch(name, compat=compat)
    _, longer_xh, longer_mask = qm9_batch(length=xh.shape[1] + 4)
    assert torch.equal(longer_xh[:, :-4], xh)
    draws = model.draw(xh, mask)
    short = model.given_draws(t, xh, mask, **draws)
    if "eta" in draws:
        draws["eta"] = torch.nn.functional.pad(draws["eta"], (0, 0, 0, 4))
    long = model.given_draws(t, longer_xh, longer_mask, **draws)[:, :-4]
    depends = bool((short - long).abs().max() > 1e-6)
    assert depends == (compat != "paper")
    assert model.depends_on_padding is depends

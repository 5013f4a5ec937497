"""What makes the dynamics fast, and that it changes no number: bfloat16, compiled blocks, one time, no padding."""

import copy

import pytest
import torch
from molecules import SIZES, model_and_batch, qm9_batch, randomise
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from symdiff_plugin import build_dynamics
from symdiff_plugin.model.dynamics import _times
from symdiff_plugin.packed.atoms import AtomLayout
from symdiff_plugin.packed.attention import attention


@pytest.mark.parametrize("name", ["symdiff_tiny", "dit_tiny"])
def test_bf16_stays_close_and_returns_float32(name):
    model, t, xh, mask, _ = model_and_batch(name)
    draws = {k: v.float() for k, v in model.draw(xh, mask).items()}
    t, xh, mask = t.float(), xh.float(), mask.float()
    exact = copy.deepcopy(model).float().given_draws(t, xh, mask, **draws)
    rounded = build_dynamics(name, 6, **SIZES, precision="bf16")
    rounded.load_state_dict(model.float().state_dict())
    out = rounded.given_draws(t, xh, mask, **draws)
    assert out.dtype == torch.float32
    error = (out - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert error.min() > 1e-5  # autocast is on
    # The median: where f_theta's matrix is nearly singular, rounding may well turn a molecule.
    assert error.median() < 0.08
    assert out[..., :3].sum(1).abs().max() < 1e-3


def test_masks_are_laid_out_once_a_sampling_run(monkeypatch):
    import symdiff_plugin.packed.atoms as atoms

    model, t, xh, mask, _ = model_and_batch()
    made = []
    original = atoms.AtomLayout.__init__
    monkeypatch.setattr(atoms.AtomLayout, "__init__", lambda self, m: (made.append(1), original(self, m))[1])
    for _ in range(3):
        model._forward(t, xh, mask, None, None)
    assert len(made) == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_blocks_are_the_same_function(precision):
    """Traced as ``torch.compile`` does, with the formulas it takes, but run by PyTorch: no compiler is needed."""
    torch.compiler.reset()
    plain = randomise(build_dynamics("symdiff_tiny", 6, depth=2, enc_depth=1, precision=precision))
    compiled = copy.deepcopy(plain)
    compiled.compile_blocks(backend="aot_eager")
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    copied = copy.deepcopy(compiled)
    for count, dynamics in ((3, compiled), (8, copied)):  # another number of tokens, and a copy
        t, xh, mask = qm9_batch(count, dtype=torch.float32)
        draws = plain.draw(xh, mask)
        ours, theirs = (model.given_draws(t, xh, mask, **draws) for model in (dynamics, plain))
        tolerance = {"fp32": 1e-4, "bf16": 3e-2}[precision]
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
        ours.square().mean().backward()
        theirs.square().mean().backward()
        for p, q in zip(dynamics.parameters(), plain.parameters(), strict=True):
            assert (p.grad - q.grad).norm() <= tolerance * q.grad.norm() + 1e-6
        plain.zero_grad()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@pytest.mark.parametrize("name", ["symdiff_tiny", "dit_tiny"])
def test_one_time_for_all_is_the_same_as_many_equal_ones(name):
    model, _, xh, mask, _ = model_and_batch(name)
    draws = model.draw(xh, mask)
    filled = torch.full((len(xh), 1), 0.3, dtype=xh.dtype)
    apart = filled + torch.linspace(0, 1e-15, len(xh), dtype=xh.dtype)[:, None]  # equal to rounding, but not the same
    out = model.given_draws(apart, xh, mask, **draws)
    with torch.no_grad():
        for t in (filled, filled[:1].expand(len(xh), 1), filled[:1], filled[0, 0]):
            torch.testing.assert_close(model.given_draws(t, xh, mask, **draws), out, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.given_draws(filled[:1], xh, mask, **draws), out, rtol=1e-9, atol=1e-9)


def test_times_that_are_known_to_be_equal_are_one():
    """Not where they would have to be read from a device, or in training, where they differ anyway."""
    xh = torch.zeros(4, 2, 9, dtype=torch.float64)
    equal, apart = torch.full((4, 1), 0.25), torch.tensor([[0.25], [0.25], [0.5], [0.25]])
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for t in (equal[:1], equal[0, 0], equal[:1].expand(4, 1), equal[0].expand(4)):
                assert _times(t, xh).tolist() == [0.25]
            assert _times(equal, xh).tolist() == ([0.25] * 4 if grad else [0.25])
            assert _times(apart, xh).tolist() == [0.25, 0.25, 0.5, 0.25]
            assert _times(apart.mT, xh).tolist() == [0.25, 0.25, 0.5, 0.25]
            assert _times(equal, xh).dtype == torch.float64
            assert _times(equal.to("meta"), xh.to("meta")).shape == (4,)


def test_blocks_are_what_goes_through_torch_compile(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **settings: calls.append((self, settings)))
    model = build_dynamics("symdiff_tiny", 6, depth=2, enc_depth=3)
    blocks = {*model.dit.blocks, *model.f_theta.dit.blocks}
    copy.deepcopy(model)
    assert not calls  # only what was asked for
    assert all(block.attn.attend is attention for block in blocks)
    for arguments, wanted in (
        ({}, {"backend": "inductor", "dynamic": True, "mode": "default"}),
        ({"mode": "reduce-overhead"}, {"backend": "inductor", "dynamic": True, "mode": "reduce-overhead"}),
        ({"backend": "eager"}, {"backend": "eager", "dynamic": True}),
    ):
        model.compile_blocks(**arguments)
        assert {block for block, _ in calls} == blocks
        assert [settings for _, settings in calls] == [wanted] * 5
        calls.clear()
        twin = copy.deepcopy(model)
        assert {block for block, _ in calls} == {*twin.dit.blocks, *twin.f_theta.dit.blocks}
        for block in (*blocks, *twin.dit.blocks, *twin.f_theta.dit.blocks):  # what is between its Linears is left out
            assert getattr(block.attn.attend, "_torchdynamo_disable", False)
        assert [settings for _, settings in calls] == [wanted] * 5
        calls.clear()


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_both_networks_compute_in_the_precision_asked_for(precision, dtype):
    """Whatever the user's own autocast says around them."""
    model = build_dynamics("symdiff_tiny", 6, precision=precision, **SIZES)
    seen = []
    for linear in (model.xh_embedder, model.f_theta.x_embedder, model.dit.final_layer.linear):
        linear.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    t, xh, mask = qm9_batch(3, dtype=torch.float32)
    for around in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=around):
            assert model._forward(t, xh, mask).dtype == torch.float32
    assert seen == [dtype] * 6


def test_the_rotation_is_of_full_precision_whatever_autocast_says():
    model = build_dynamics("symdiff_tiny", 6, depth=1, enc_depth=1).f_theta
    layout = AtomLayout(qm9_batch(3)[2])
    features = torch.randn(layout.tokens, model.x_embedder.in_features)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.x_embedder(features).dtype == torch.bfloat16
        assert model.matrix(features, torch.rand(3), layout).dtype == torch.float32
        assert model(features, torch.rand(3), layout).dtype == torch.float32


class WeightCasts(TorchDispatchMode):
    """How often a matrix is rounded to bfloat16."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and isinstance(args[0], torch.nn.Parameter) and out.dim() == 2:
            self.count += 1
        return out


def test_a_sampling_run_rounds_its_weights_once():
    model = randomise(build_dynamics("symdiff_tiny", 6, precision="bf16", **SIZES)).eval()
    t, xh, mask = qm9_batch(dtype=torch.float32)
    draws = model.draw(xh, mask)
    with torch.no_grad():
        with WeightCasts() as apart:
            every = [model.given_draws(t, xh, mask, **draws) for _ in range(3)]
        with WeightCasts() as together, model.sampling():
            once = [model.given_draws(t, xh, mask, **draws) for _ in range(3)]
    assert apart.count == 3 * together.count > 0
    assert all(torch.equal(a, b) for a, b in zip(every, once, strict=True))
    with torch.no_grad():  # what comes after a run sees new weights
        model.dit.final_layer.linear.weight.mul_(2)
        assert not torch.equal(model.given_draws(t, xh, mask, **draws), once[0])


@pytest.mark.parametrize("name", ["symdiff_tiny", "dit_tiny"])
def test_padding_adds_no_arithmetic_to_the_networks(name):
    counts = set()
    for length in (29, 181):
        model, t, xh, mask, _ = model_and_batch(name, length=length)
        draws = model.draw(xh, mask)
        with FlopCounterMode(display=False) as counter:
            model.given_draws(t, xh, mask, **draws).square().sum().backward()
        of = counter.get_flop_counts()["Global"]
        counts.add(sum(value for operation, value in of.items() if "bmm" not in str(operation)))  # those turn positions
    assert len(counts) == 1

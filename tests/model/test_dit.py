import math

import pytest
import torch
from molecules import randomise

from symdiff_plugin.model import reference
from symdiff_plugin.model.dit import DiT, TimestepEmbedder
from symdiff_plugin.packed.atoms import AtomLayout


def layout(sizes, length=7):
    mask = torch.zeros(len(sizes), length, 1)
    for i, n in enumerate(sizes):
        mask[i, :n] = 1
    return AtomLayout(mask)


def test_sinusoids_are_dits():
    t = torch.tensor([0.0, 1.0, 513.25], dtype=torch.float64)
    out = TimestepEmbedder(8).sinusoids(t)
    for row, time in zip(out, t.tolist(), strict=True):
        angles = [time * 10000 ** (-i / 128) for i in range(128)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


def test_sinusoids_are_made_where_the_times_are():
    assert TimestepEmbedder(8).sinusoids(torch.empty(3, device="meta")).is_meta


def test_adaln_zero_predicts_zero_at_the_start():
    torch.manual_seed(0)
    model = DiT(16, 2, 4, out_features=5)
    assert model(torch.randn(9, 16), torch.rand(3), layout([4, 2, 3])).abs().max() == 0


def test_blocks_are_the_identity_at_the_start():
    torch.manual_seed(0)
    x = torch.randn(9, 16)
    assert torch.equal(DiT(16, 2, 4)(x, torch.rand(3), layout([4, 2, 3])), x)


def test_swiglu_starts_as_its_gate_alone():
    torch.manual_seed(0)
    mlp = DiT(16, 1, 4).blocks[0].mlp
    x = torch.randn(5, 16)
    gate = torch.nn.functional.silu(x @ mlp.fc1.weight[:32].T)
    torch.testing.assert_close(mlp(x), gate @ mlp.fc2.weight.T, rtol=0, atol=1e-4)


def test_initial_weights():
    torch.manual_seed(0)
    block = DiT(64, 1, 4, out_features=3).blocks[0]
    bound = math.sqrt(6 / (64 + 3 * 64))
    assert 0.98 * bound < block.attn.qkv.weight.abs().max() <= bound
    assert block.attn.qkv.bias.abs().max() == 0
    assert (block.mlp.fc1.bias[128:] == 1).all()
    assert (block.mlp.fc1.bias[:128] == 0).all()
    gate, linear = block.mlp.fc1.weight.detach().double().split(128)
    assert 0.98 * math.sqrt(6 / (64 + 256)) < gate.abs().max() <= math.sqrt(6 / (64 + 256))
    assert abs(linear.std() / 1e-6 - 1) < 0.05
    assert linear.abs().max() < 6e-6
    assert block.adaLN_modulation[1].weight.abs().max() == 0


def test_the_final_layer_is_zero_at_the_start():
    final = DiT(16, 1, 4, out_features=3).final_layer
    for linear in (final.adaLN_modulation[1], final.linear):
        assert (linear.weight == 0).all()
        assert (linear.bias == 0).all()


def test_the_residual_stream_is_of_the_times_precision():
    x, t = torch.randn(9, 16).bfloat16(), torch.rand(3)
    with torch.autocast("cpu", torch.bfloat16):
        assert DiT(16, 1, 4)(x, t, layout([4, 2, 3])).dtype == torch.float32


def test_initial_weights_of_the_time_embedding():
    """N(0, 0.02^2), as DiT has them."""
    torch.manual_seed(0)
    mlp = DiT(128, 1, 4).t_embedder.mlp
    for linear in (mlp[0], mlp[2]):
        normal = linear.weight.detach().double() / 0.02
        error = normal.numel() ** -0.5
        assert abs(normal.mean()) < 4 * error
        assert abs(normal.std() - 1) < 4 * error
        assert abs(normal.pow(4).mean() - 3) < 4 * 96**0.5 * error  # normal, not uniform, whose is 1.8
        assert (linear.bias == 0).all()


@pytest.mark.parametrize("out_features", [5, None])
@pytest.mark.parametrize("one_time", [False, True])
def test_outputs_and_gradients_against_the_naive_reference(out_features, one_time):
    """Sequences neither in order of their lengths nor all of different ones."""
    torch.manual_seed(0)
    model = randomise(DiT(16, 2, 4, mlp_ratio=3.0, out_features=out_features).double())
    of, sizes = layout([4, 2, 3, 4, 1]), [4, 2, 3, 4, 1]
    tokens, t = torch.randn(14, 16, dtype=torch.float64), 100 * torch.rand(5, dtype=torch.float64)
    if one_time:
        t = t[:1]
    ours = of.unpack(model(tokens, t, of))
    padded = of.unpack(tokens)
    parameters = dict(model.named_parameters())
    times = t.expand(5)
    theirs = torch.zeros_like(ours)
    for i, n in enumerate(sizes):
        theirs[i, :n] = reference.dit(parameters, padded[i, :n], times[i], 4, out_features is not None)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    weight = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), parameters.values()),
        torch.autograd.grad((theirs * weight).sum(), parameters.values()),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_sequences_do_not_see_each_other():
    torch.manual_seed(0)
    model = DiT(16, 2, 4, out_features=5).double()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    tokens, t = torch.randn(9, 16, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    before = model(tokens, t, layout([4, 2, 3]))
    tokens[:2] += 1
    after = model(tokens, t, layout([4, 2, 3]))
    assert torch.equal(before[2:], after[2:])
    assert (before[:2] != after[:2]).any()


def test_dropout_is_for_training_only():
    torch.manual_seed(0)
    model = DiT(16, 1, 4, out_features=5, dropout=0.5)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    tokens, t = torch.randn(9, 16), torch.rand(3)
    run = lambda: model(tokens, t, layout([4, 2, 3]))  # noqa: E731
    assert not torch.equal(run(), run())
    model.eval()
    assert torch.equal(run(), run())


@pytest.mark.parametrize("sizes", [[1], [1, 1, 7], [4, 4, 4]])
def test_any_mixture_of_sizes(sizes):
    model = DiT(16, 1, 4)
    assert model(torch.randn(sum(sizes), 16), torch.rand(len(sizes)), layout(sizes)).shape == (sum(sizes), 16)

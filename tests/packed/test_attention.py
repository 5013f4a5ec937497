import math

import pytest
import torch
from molecules import qm9_batch

from symdiff_plugin.packed import attention as module
from symdiff_plugin.packed.atoms import AtomLayout
from symdiff_plugin.packed.attention import Attention, attention

HEADS, WIDTH = 3, 12


def naive(qkv, layout):
    """Head by head and molecule by molecule."""
    sizes = [n for b, n in layout.buckets for _ in range(b)]
    outs = []
    for tokens in qkv.split(sizes):
        q, k, v = tokens.chunk(3, dim=-1)
        heads = []
        for columns in torch.arange(WIDTH).chunk(HEADS):
            weights = torch.softmax(q[:, columns] @ k[:, columns].T / math.sqrt(WIDTH // HEADS), dim=-1)
            heads.append(weights @ v[:, columns])
        outs.append(torch.cat(heads, dim=-1))
    return torch.cat(outs)


@pytest.fixture(params=["exact sizes", "padded groups"])
def path(request, monkeypatch):
    """The CPU's way, and the one of other devices."""
    monkeypatch.setattr(AtomLayout, "exact", request.param == "exact sizes")


@pytest.fixture(params=["qm9", "scattered"])
def layout(request):
    if request.param == "qm9":
        return AtomLayout(qm9_batch(length=31)[2])
    torch.manual_seed(0)
    mask = (torch.rand(7, 9) < 0.6).double()
    mask[2] = 0
    return AtomLayout(mask)


@pytest.mark.parametrize("elements", [1, 200, 1 << 16])
def test_attention_and_its_gradient_against_the_naive_version(layout, path, elements, monkeypatch):
    monkeypatch.setattr(module, "_SLICE", elements)
    torch.manual_seed(0)
    qkv = torch.randn(layout.tokens, 3 * WIDTH, dtype=torch.float64, requires_grad=True)
    before = qkv.detach().clone()
    ours, theirs = attention(qkv, HEADS, layout), naive(qkv, layout)
    assert ("_BySlices" in ours.grad_fn.name()) == layout.exact
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    weight = torch.randn_like(ours)
    (a,), (b,) = (torch.autograd.grad((out * weight).sum(), qkv) for out in (ours, theirs))
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert torch.equal(qkv, before)


def test_the_module_has_a_linear_before_and_one_behind(layout):
    torch.manual_seed(0)
    model = Attention(WIDTH, HEADS).double()
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "qkv.weight": (3 * WIDTH, WIDTH), "qkv.bias": (3 * WIDTH,), "proj.weight": (WIDTH, WIDTH), "proj.bias": (WIDTH,)
    }  # fmt: skip
    x = torch.randn(layout.tokens, WIDTH, dtype=torch.float64)
    q, p = model.qkv, model.proj
    theirs = naive(x @ q.weight.T + q.bias, layout) @ p.weight.T + p.bias
    torch.testing.assert_close(model(x, layout), theirs, rtol=1e-12, atol=1e-13)


def test_bfloat16_rounds_only_what_goes_in_and_out(layout, path):
    torch.manual_seed(0)
    qkv = torch.randn(layout.tokens, 3 * WIDTH, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        ours = attention(qkv, HEADS, layout)
    theirs = naive(qkv.double(), layout)
    assert ours.dtype == torch.bfloat16
    assert (ours - theirs).abs().max() <= 2**-7 * theirs.abs().max()
    (a,) = torch.autograd.grad(ours.float().square().sum(), qkv)
    (b,) = torch.autograd.grad(theirs.square().sum(), qkv)
    assert (a.double() - b.double()).abs().max() <= 2**-5 * b.abs().max()


def test_slices_hold_as_many_sequences_as_fit_and_all_of_them(monkeypatch):
    monkeypatch.setattr(module, "_SLICE", 5 * WIDTH)
    mask = torch.zeros(7, 5)
    for row, n in enumerate((2, 3, 5, 2, 0, 2, 3)):
        mask[row, :n] = 1
    layout = AtomLayout(mask)
    rows = torch.arange(layout.tokens)[:, None]
    found = list(module._slices(layout, rows.expand(-1, 3 * WIDTH), rows))
    assert [shape for _, shape in found] == [(2, 2), (1, 2), (1, 3), (1, 3), (1, 5)]
    for part in range(2):
        assert torch.equal(torch.cat([tensors[part][:, :1] for tensors, _ in found]), rows)
    assert all(len(tensors[0]) == b * n for tensors, (b, n) in found)


def test_on_a_cpu_autocast_changes_nothing_inside():
    layout = AtomLayout(qm9_batch()[2])
    torch.manual_seed(0)
    qkv = torch.randn(layout.tokens, 3 * WIDTH).bfloat16().float().requires_grad_()
    plain = attention(qkv, HEADS, layout)
    torch.testing.assert_close(plain.double(), naive(qkv.double(), layout), rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attention(qkv, HEADS, layout), plain)
        assert torch.equal(attention(qkv.bfloat16(), HEADS, layout), plain.bfloat16())


def test_gradient_that_is_not_contiguous(layout, path):
    qkv = torch.randn(layout.tokens, 3 * WIDTH, dtype=torch.float64, requires_grad=True)
    attention(qkv, HEADS, layout).sum().backward()  # sum's gradient is an expanded scalar
    torch.testing.assert_close(qkv.grad[:, 2 * WIDTH :].sum(), torch.tensor(1.0 * WIDTH * layout.tokens).double())

import pytest
import torch
from molecules import qm9_batch

from symdiff_plugin.packed import row_slices as slices
from symdiff_plugin.packed.atoms import AtomLayout
from symdiff_plugin.packed.modulation import gated_sum, modulated_norm


@pytest.fixture
def layout():
    return AtomLayout(qm9_batch()[2])


@pytest.fixture(params=["slices", "compiling"])
def way(request, monkeypatch):
    """By hand, or by the formulas that torch.compile is given."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: request.param == "compiling")


def token_rows(layout, coefficients):
    """The coefficients of each token, spelled out."""
    molecule = layout.pack(torch.arange(layout.shape[0])[:, None, None].expand(*layout.shape, 1))
    return torch.stack([coefficients[i] for i in molecule.flatten().tolist()])


def draws(*shapes):
    torch.manual_seed(0)
    return [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def assert_same(ours, theirs, inputs):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    weight = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), inputs, retain_graph=True),
        torch.autograd.grad((theirs * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_modulated_norm_and_its_gradients(layout, way):
    x, shift, scale = inputs = draws((layout.tokens, 6), (8, 6), (8, 6))
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    theirs = normed * (1 + token_rows(layout, scale)) + token_rows(layout, shift)
    ours = modulated_norm(x, shift, scale, layout)
    assert ("_ModulatedNorm" in ours.grad_fn.name()) == (not torch.compiler.is_compiling())
    assert_same(ours, theirs, inputs)


def test_gated_sum_and_its_gradients(layout, way):
    x, gate, h = inputs = draws((layout.tokens, 6), (8, 6), (layout.tokens, 6))
    ours = gated_sum(x, gate, h, layout)
    assert ("_GatedSum" in ours.grad_fn.name()) == (not torch.compiler.is_compiling())
    assert_same(ours, x + token_rows(layout, gate) * h, inputs)


def test_gradients_that_are_not_contiguous(layout):
    x, gate, h = draws((layout.tokens, 6), (8, 6), (layout.tokens, 6))
    gated_sum(x, gate, h, layout).sum().backward()  # sum's gradient is an expanded scalar
    torch.testing.assert_close(gate.grad.sum(), h.sum())
    x, shift, scale = draws((layout.tokens, 6), (8, 6), (8, 6))
    modulated_norm(x, shift, scale, layout).sum().backward()
    torch.testing.assert_close(shift.grad.sum(), torch.tensor(6.0 * layout.tokens, dtype=torch.float64))


@pytest.mark.parametrize("elements", [1, 100])
def test_slices_change_nothing(layout, elements, monkeypatch):
    x, shift, scale = inputs = draws((layout.tokens, 6), (8, 6), (8, 6))
    whole = modulated_norm(x, shift, scale, layout), gated_sum(x, shift, 2 * x, layout)
    monkeypatch.setattr(slices, "CPU_ELEMENTS", elements)
    assert_same(modulated_norm(x, shift, scale, layout), whole[0], inputs)
    assert_same(gated_sum(x, shift, 2 * x, layout), whole[1], inputs[:2])


def test_one_row_of_coefficients_serves_all(layout):
    x, shift, scale = inputs = draws((layout.tokens, 6), (1, 6), (1, 6))
    rows = [v.expand(8, 6) for v in (shift, scale)]
    assert_same(modulated_norm(x, shift, scale, layout), modulated_norm(x, *rows, layout), inputs)
    assert_same(gated_sum(x, shift, 2 * x, layout), gated_sum(x, rows[0], 2 * x, layout), inputs[:2])


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("width", [1, 6])
def test_coefficients_of_one_or_two_molecules_or_columns(batch, width):
    """One row serves all, and nothing else is taken for one row."""
    layout = AtomLayout(qm9_batch(batch)[2])
    x, shift, scale = inputs = draws((layout.tokens, width), (batch, width), (batch, width))
    rows = [token_rows(layout, v) for v in (shift, scale)]
    normed = torch.nn.functional.layer_norm(x, (width,), eps=1e-6)
    assert_same(modulated_norm(x, shift, scale, layout), normed * (1 + rows[1]) + rows[0], inputs)


@pytest.mark.parametrize("rows", [1, 8])
def test_lower_precision_coefficients_and_updates_are_raised_first(layout, way, rows):
    """What is of lower precision counts as the number it is; gradients are summed up in that of the tokens."""
    inputs = [v.detach().float() for v in draws((layout.tokens, 6), (rows, 6), (rows, 6), (layout.tokens, 6))]
    low = [inputs[0], *(v.bfloat16() for v in inputs[1:])]
    high = [v.float() for v in low]
    weight = torch.randn(layout.tokens, 6)
    for function in (
        lambda x, shift, scale, h: modulated_norm(x, shift, scale, layout),
        lambda x, shift, scale, h: gated_sum(x, shift, h, layout),
    ):
        for v in (*low, *high):
            v.requires_grad_()
        ours, theirs = function(*low), function(*high)
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)
        a = torch.autograd.grad((ours * weight).sum(), low, allow_unused=True)
        b = torch.autograd.grad((theirs * weight).sum(), high, allow_unused=True)
        for p, q in zip(a, b, strict=True):
            if q is not None:
                torch.testing.assert_close(p, q.to(p.dtype))


def test_under_autocast_the_norm_is_of_the_next_linears_type(layout):
    x, shift, scale = (v.detach().float().requires_grad_() for v in draws((layout.tokens, 6), (8, 6), (8, 6)))
    plain = modulated_norm(x, shift, scale, layout)
    with torch.autocast("cpu", torch.bfloat16):
        low = modulated_norm(x, shift, scale, layout)
        assert low.dtype == torch.bfloat16
        assert gated_sum(x, shift, low, layout).dtype == torch.float32
    assert torch.equal(low, plain.bfloat16())
    weight = torch.randn_like(x).bfloat16().float()
    for a, b in zip(
        torch.autograd.grad((low * weight).sum(), (x, shift, scale)),
        torch.autograd.grad((plain * weight).sum(), (x, shift, scale)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)

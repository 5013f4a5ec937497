import pytest
import torch
from molecules import qm9_batch

from symdiff_plugin import slices
from symdiff_plugin.atoms import AtomLayout
from symdiff_plugin.modulation import gated_sum, modulated_norm


@pytest.fixture
def layout():
    return AtomLayout(qm9_batch()[2])


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


def test_modulated_norm_and_its_gradients(layout):
    x, shift, scale = inputs = draws((layout.tokens, 6), (8, 6), (8, 6))
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    theirs = normed * (1 + token_rows(layout, scale)) + token_rows(layout, shift)
    assert_same(modulated_norm(x, shift, scale, layout), theirs, inputs)


def test_gated_sum_and_its_gradients(layout):
    x, gate, h = inputs = draws((layout.tokens, 6), (8, 6), (layout.tokens, 6))
    assert_same(gated_sum(x, gate, h, layout), x + token_rows(layout, gate) * h, inputs)


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


def test_lower_precision_coefficients_and_updates(layout):
    x, shift, scale = (v.detach().float() for v in draws((layout.tokens, 6), (8, 6), (8, 6)))
    assert modulated_norm(x, shift.bfloat16(), scale.bfloat16(), layout).dtype == torch.float32
    assert gated_sum(x, shift.bfloat16(), x.bfloat16(), layout).dtype == torch.float32

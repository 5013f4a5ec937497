import pytest
import torch

from symdiff_plugin.packed import row_slices as slices
from symdiff_plugin.packed.swiglu import SwiGLU, gated


@pytest.mark.parametrize(("elements", "compiling"), [(1, False), (40, False), (1 << 16, False), (1 << 16, True)])
def test_swiglu_and_its_gradients_against_the_formula(elements, compiling, monkeypatch):
    monkeypatch.setattr(slices, "CPU_ELEMENTS", elements)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    torch.manual_seed(0)
    mlp = SwiGLU(6, 10).double()
    x = torch.randn(23, 6, dtype=torch.float64, requires_grad=True)
    a, b = (x @ mlp.fc1.weight.T + mlp.fc1.bias).split(10, dim=-1)
    theirs = (a / (1 + torch.exp(-a)) * b) @ mlp.fc2.weight.T + mlp.fc2.bias
    assert ("_Gated" in gated(mlp.fc1(x)).grad_fn.name()) == (not compiling)
    ours = mlp(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    weight = torch.randn_like(ours)
    inputs = [x, *mlp.parameters()]
    for p, q in zip(
        torch.autograd.grad((ours * weight).sum(), inputs, retain_graph=True),
        torch.autograd.grad((theirs * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)
    (p,) = torch.autograd.grad(ours.sum(), x)  # sum's gradient is an expanded scalar
    assert p.isfinite().all()


def test_dropout_is_on_the_product_and_for_training_only():
    torch.manual_seed(0)
    mlp, x = SwiGLU(6, 10, dropout=0.5), torch.randn(4, 6)
    torch.manual_seed(1)
    out = mlp(x)
    torch.manual_seed(1)
    torch.testing.assert_close(out, mlp.fc2(torch.nn.functional.dropout(gated(mlp.fc1(x)), 0.5)))
    torch.testing.assert_close(mlp.eval()(x), mlp.fc2(gated(mlp.fc1(x))))

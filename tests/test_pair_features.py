import pytest
import reference
import torch
from molecules import qm9_batch
from torch.utils._python_dispatch import TorchDispatchMode

from symdiff_plugin import slices
from symdiff_plugin.atoms import AtomLayout
from symdiff_plugin.groups import sample_haar
from symdiff_plugin.pair_features import GaussianPairEmbedding


@pytest.fixture
def embedding():
    torch.manual_seed(0)
    embedding = GaussianPairEmbedding(10, 6).double()
    with torch.no_grad():
        embedding.stds[3] *= -1  # only |sigma| counts
        embedding.proj.bias.normal_()
    return embedding


def naive(embedding, xh, mask):
    p = {f"pair_embedding.{name}": value for name, value in embedding.named_parameters()}
    out = xh.new_zeros(*xh.shape[:2], 6)
    for i in range(len(xh)):
        real = mask[i, :, 0] != 0
        psi = reference.release_psi(p, xh[i, real, :3], xh.shape[1]) if embedding.release else None
        out[i, real] = reference.psi(p, xh[i, real, :3]) if psi is None else psi
    return out


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("slice_elements", [1, 500, 1 << 20])
@pytest.mark.parametrize("exact", [True, False])  # False: as on a GPU
def test_psi_and_its_gradients_against_the_naive_version(embedding, release, slice_elements, exact, monkeypatch):
    monkeypatch.setattr(slices, "CPU_ELEMENTS", slice_elements)
    monkeypatch.setattr(AtomLayout, "exact", exact)
    embedding.release = release
    _, xh, mask = qm9_batch(length=31)
    xh.requires_grad_()
    layout = AtomLayout(mask)
    ours = layout.unpack(embedding(layout.pack(xh[..., :3]), layout))
    theirs = naive(embedding, xh, mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(ours)
    inputs = [xh, *embedding.parameters()]
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), inputs),
        torch.autograd.grad((theirs * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_psi_does_not_change_under_rotations_and_reflections(embedding):
    torch.manual_seed(1)
    _, xh, mask = qm9_batch()
    layout = AtomLayout(mask)
    x = xh[..., :3]
    turned = x @ sample_haar(len(x), dtype=x.dtype)
    a, b = (embedding(layout.pack(v), layout) for v in (x, turned))
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_release_depends_on_the_padding_and_the_paper_does_not(embedding):
    results = {}
    for release in (False, True):
        embedding.release = release
        for length in (29, 40):
            _, xh, mask = qm9_batch(length=length)
            layout = AtomLayout(mask)
            results[release, length] = embedding(layout.pack(xh[..., :3]), layout)
    torch.testing.assert_close(results[False, 29], results[False, 40])
    assert (results[True, 29] - results[True, 40]).abs().max() > 0.1


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return out


def test_no_tensor_of_all_pairs_and_kernels_exists():
    embedding = GaussianPairEmbedding(184, 200)
    x = torch.randn(1, 181, 3)
    layout = AtomLayout(torch.ones(1, 181, 1))
    with LargestTensor() as seen:
        embedding(layout.pack(x), layout).sum().backward()
    assert 0 < seen.elements <= slices.CPU_ELEMENTS
    assert 10 * seen.elements < 181 * 181 * 184

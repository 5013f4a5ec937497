import pytest
import torch
from molecules import qm9_batch
from torch.utils._python_dispatch import TorchDispatchMode

from symdiff_plugin.model import pair_features, reference
from symdiff_plugin.model.groups import sample_haar
from symdiff_plugin.model.pair_features import GaussianPairEmbedding
from symdiff_plugin.packed import row_slices as slices
from symdiff_plugin.packed.atoms import AtomLayout


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


def test_kernels_start_uniform_on_0_to_3_as_in_the_paper():
    torch.manual_seed(0)
    embedding = GaussianPairEmbedding(20_000, 1)
    for parameter in (embedding.means, embedding.stds):
        assert 0 <= parameter.min() < 0.001 * 3
        assert 0.999 * 3 < parameter.max() <= 3
        assert abs(parameter.mean() - 1.5) < 4 * 3 / 12**0.5 / 20_000**0.5


@pytest.mark.parametrize("exact", [True, False])
def test_pairs_go_by_exact_sizes_or_by_padded_groups(embedding, exact, monkeypatch):
    monkeypatch.setattr(AtomLayout, "exact", exact)
    monkeypatch.setattr(AtomLayout, "groups" if exact else "split", None)  # of no use then
    _, xh, mask = qm9_batch()
    layout = AtomLayout(mask)
    assert embedding(layout.pack(xh[..., :3]), layout).shape == (layout.tokens, 6)


@pytest.mark.parametrize("release", [False, True])
def test_features_are_of_the_positions_dtype_whatever_the_masks(embedding, release):
    embedding.release = release
    _, xh, mask = qm9_batch()
    layout = AtomLayout(mask)
    x = layout.pack(xh[..., :3])
    single = embedding.float()(x.float(), layout)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, embedding.double()(x, layout).float(), rtol=1e-4, atol=1e-5)


def test_the_paper_is_the_default():
    assert not GaussianPairEmbedding(4, 2).release


@pytest.mark.parametrize(("means", "stds"), [(True, True), (True, False), (False, True), (False, False)])
def test_moments_are_for_learning_only(embedding, means, stds, monkeypatch):
    """What sampling, or a frozen Psi, need not compute."""
    seen = []

    class Sum:
        @staticmethod
        def apply(d, mu, s, learning):
            seen.append(learning)
            return d.new_zeros(d.shape[0], mu.shape[0])

    monkeypatch.setattr(pair_features, "_SumGaussian", Sum)
    embedding.means.requires_grad_(means)
    embedding.stds.requires_grad_(stds)
    layout = AtomLayout(torch.ones(1, 4, 1))
    embedding(torch.randn(4, 3).double(), layout)
    with torch.no_grad():
        embedding(torch.randn(4, 3).double(), layout)
    assert seen == [means or stds, False]


@pytest.mark.parametrize(("learning", "kept"), [(True, 6), (False, 4)])
def test_what_is_kept_for_the_backward_pass(learning, kept):
    """d, mu, s and S_0; S_1 and S_2 where mu or s learns."""
    d, mu, s = torch.rand(5, 3, requires_grad=True), torch.rand(4), torch.rand(4) + 1
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        out = pair_features._SumGaussian.apply(d, mu, s, learning)
    z = (d[..., None] - mu) / s
    torch.testing.assert_close(out, (torch.exp(-z * z / 2) / ((2 * torch.pi) ** 0.5 * s)).sum(1))
    assert len(saved) == kept


def test_distances_are_exact_far_from_the_origin():
    """In float32 |a|^2 + |b|^2 - 2ab would be off by tenths."""
    torch.manual_seed(0)
    x = 300 + torch.randn(1, 40, 3)
    exact = (x.double()[:, :, None] - x.double()[:, None]).norm(dim=-1)
    torch.testing.assert_close(pair_features._distances(x).double(), exact, rtol=1e-5, atol=1e-5)


def test_positions_get_their_gradient_from_a_frozen_psi_too(embedding):
    layout = AtomLayout(torch.ones(2, 4, 1))
    x = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    (wanted,) = torch.autograd.grad(embedding(x, layout).square().sum(), x)
    embedding.requires_grad_(False)
    (found,) = torch.autograd.grad(embedding(x, layout).square().sum(), x)
    assert wanted.abs().max() > 0
    assert torch.equal(found, wanted)


def test_slices_elsewhere_than_on_a_cpu_have_a_limit_too(monkeypatch):
    monkeypatch.setattr(pair_features, "ELEMENTS", 24)
    found = pair_features._slices(torch.empty(5, 3, device="meta"), torch.empty(4, device="meta"))
    assert [(rows.start, rows.stop) for rows in found] == [(0, 2), (2, 4), (4, 5)]

import copy
import pickle

import pytest
import torch
from molecules import qm9_batch

from symdiff_plugin.packed.atoms import AtomLayout, LayoutCache, remove_mean


@pytest.fixture
def scattered():
    """A batch whose atoms stand anywhere, with a molecule of one atom and one of none."""
    torch.manual_seed(0)
    mask = (torch.rand(7, 9) < 0.6).double()
    mask[2] = 0
    mask[4] = torch.eye(9)[3]
    return mask[..., None]


def test_pack_and_unpack_are_inverse(scattered):
    layout = AtomLayout(scattered)
    x = torch.randn(7, 9, 4, dtype=torch.float64) * scattered
    tokens = layout.pack(x)
    assert tokens.shape == (int(scattered.sum()), 4)
    assert torch.equal(layout.unpack(tokens), x)


def test_buckets_hold_whole_molecules(scattered):
    layout = AtomLayout(scattered)
    molecule = torch.arange(7.0)[:, None, None].expand(7, 9, 1)
    for part in layout.split(layout.pack(molecule)):
        assert (part == part[:, :1]).all()
    sizes = [n for b, n in layout.buckets for _ in range(b)]
    assert sizes == sorted(scattered.sum((1, 2)).int().tolist())
    assert {type(number) for bucket in layout.buckets for number in bucket} == {type(layout.tokens)} == {int}


def test_split_makes_views_and_join_undoes_it(scattered):
    layout = AtomLayout(scattered)
    tokens = torch.randn(layout.tokens, 5)
    parts = layout.split(tokens)
    assert all(p.untyped_storage().data_ptr() == tokens.untyped_storage().data_ptr() for p in parts)
    assert torch.equal(layout.join(parts), tokens)
    with pytest.raises(ValueError, match="zip"):
        layout.join(parts[:-1])


def test_groups_pad_a_little_and_lose_nothing(scattered):
    for mask in (scattered, qm9_batch(length=31)[2]):
        layout = AtomLayout(mask)
        tokens = torch.randn(layout.tokens, 5)
        parts = []
        sizes = [n for b, n in layout.buckets for _ in range(b) if n]
        for group in layout.groups:
            padded = group.pad(tokens)
            of_group = group.mask.sum(1).tolist()
            assert 4 * min(of_group) >= 3 * max(of_group) == 3 * padded.shape[1]
            assert [n for n in of_group if n] == sizes[: len(of_group)]
            del sizes[: len(of_group)]
            parts.append(group.real(padded))
            assert torch.equal(parts[-1], padded[group.mask])
        assert torch.equal(torch.cat(parts), tokens)
    assert len(layout.groups) > 2


def layout_of(*sizes):
    return AtomLayout((torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]).float())


@pytest.mark.parametrize(
    ("sizes", "lengths"), [((4, 3), [4]), ((3, 2), [2, 3]), ((8, 3, 6, 4, 5), [3, 5, 8]), ((1,), [1]), ((0, 0), [])]
)
def test_a_groups_smallest_has_three_quarters_of_its_largest(sizes, lengths):
    assert [group.mask.shape[1] for group in layout_of(*sizes).groups] == lengths


def test_one_row_serves_all_and_takes_from_all(scattered):
    layout = AtomLayout(scattered)
    row = torch.arange(4.0).double()[None]
    assert layout.expand(row) is row
    tokens = torch.arange(4.0 * layout.tokens).double().view(-1, 4)
    assert torch.equal(layout.add_to(row.clone(), tokens[3:9], slice(3, 9)), row + tokens[3:9].sum(0))
    two = torch.tensor([[1.0], [2.0]])
    assert layout_of(3, 1).expand(two).flatten().tolist() == [2, 1, 1, 1]
    assert layout_of(3, 1).add_to(two.clone(), torch.ones(4, 1)).flatten().tolist() == [4, 3]


@pytest.mark.parametrize(
    ("dtype", "of_counts"),
    [(torch.bool, torch.float32), (torch.int64, torch.float32), (torch.float64, torch.float64)],
)
def test_counts_are_of_the_masks_dtype_and_means_of_the_tokens(scattered, dtype, of_counts):
    layout = AtomLayout(scattered.to(dtype))
    assert layout.counts.dtype == of_counts
    for of_tokens in (torch.float32, torch.float64):
        tokens = layout.pack(scattered.to(of_tokens))
        assert layout.mean(tokens).dtype == of_tokens


def test_masks_of_two_dimensions():
    for mask in (torch.ones(4, 1), torch.ones(4, 3), torch.ones(1, 1)):
        assert AtomLayout(mask).shape == tuple(mask.shape)
        assert AtomLayout(mask[..., None]).shape == tuple(mask.shape)


def test_mean_and_expand_against_a_loop(scattered):
    layout = AtomLayout(scattered)
    x = torch.randn(7, 9, 3, dtype=torch.float64) * scattered
    expected = torch.stack([x[i].sum(0) / max(1, scattered[i].sum()) for i in range(7)])
    mean = layout.mean(layout.pack(x))
    torch.testing.assert_close(mean, expected)
    expanded = layout.unpack(layout.expand(mean))
    torch.testing.assert_close(expanded, expected[:, None] * scattered)


def test_rows_of_molecules_are_in_the_order_given(scattered):
    """What has one row a molecule is nowhere sorted by size, as the atoms are."""
    layout = AtomLayout(scattered)
    sizes = scattered.sum((1, 2))
    assert sizes.tolist() != sorted(sizes.tolist())
    assert torch.equal(layout.counts[:, 0], sizes.clamp(min=1))
    rows = torch.arange(7.0).double()[:, None]
    assert torch.equal(layout.unpack(layout.expand(rows)), rows[:, None] * scattered)
    some = slice(3, 19)
    assert torch.equal(layout.expand(rows, some), layout.expand(rows)[some])
    added = layout.add_to(10 * rows, layout.pack(scattered))
    assert torch.equal(added, 10 * rows + sizes[:, None])
    ones = torch.ones(16, 1, dtype=torch.float64)
    counts = torch.stack([(layout.expand(rows)[some] == row).sum() for row in rows])[:, None].double()
    assert torch.equal(layout.add_to(torch.zeros_like(rows), ones, some), counts)


@pytest.mark.parametrize("count", [3, 4, 6, 8, 16, 19])
def test_batches_of_the_tests_are_not_in_the_order_of_packing(count):
    """Otherwise no test that uses them could see molecules mixed up; nor could one whose order is its own inverse."""
    order = qm9_batch(count)[2].sum((1, 2)).argsort(stable=True)
    assert not torch.equal(order, torch.arange(count))
    assert not torch.equal(order[order], torch.arange(count))


def test_gradients_pass_through_packing(scattered):
    layout = AtomLayout(scattered)
    x = torch.randn(7, 9, 2, dtype=torch.float64, requires_grad=True)
    layout.unpack(layout.expand(layout.mean(layout.pack(x)))).sum().backward()
    torch.testing.assert_close(x.grad, scattered.expand(7, 9, 2))


def test_meta_mask_takes_every_atom_for_real():
    layout = AtomLayout(torch.empty(3, 5, 1, device="meta"))
    assert layout.tokens == 15
    tokens = torch.empty(15, 2, device="meta")
    assert layout.unpack(tokens).shape == (3, 5, 2)
    (group,) = layout.groups
    assert group.pad(tokens).shape == (3, 5, 2)
    assert group.real(group.pad(tokens)).shape == (15, 2)


def test_wrong_mask_shape_is_refused():
    with pytest.raises(ValueError, match="node_mask must be"):
        AtomLayout(torch.ones(2, 3, 4))


def test_cache_keeps_the_last_mask_and_notices_changes(scattered):
    cache = LayoutCache()
    layout = cache(scattered)
    assert cache(scattered) is layout
    assert cache(scattered.clone()) is not layout
    layout = cache(scattered)
    scattered[0] = 1
    assert cache(scattered) is not layout
    assert cache(scattered).buckets[-1] == (1, 9)


@torch.inference_mode()
def test_cache_trusts_no_mask_that_does_not_count_its_changes(scattered):
    """A mask made under ``inference_mode``, as in a PyTorch without its private counter: a layout for every call."""
    cache, mask = LayoutCache(), scattered.clone()
    assert cache(mask) is not cache(mask)
    mask[0] = 1
    assert cache(mask).buckets[-1] == (1, 9)


def test_cache_copies_start_empty(scattered):
    cache = LayoutCache()
    cache(scattered)
    for copied in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert copied._last is None


def test_remove_mean_is_a_projection_to_zero_centre_of_mass():
    _, xh, mask = qm9_batch()
    x = remove_mean((xh[..., :3] + 7) * mask, mask)
    assert x.sum(1).abs().max() < 1e-12
    assert (x * (1 - mask)).abs().max() == 0
    torch.testing.assert_close(remove_mean(x, mask), x)


def test_remove_mean_of_few_atoms_and_other_dtypes(scattered):
    x = torch.randn(7, 9, 3) * scattered.float()
    centred = remove_mean(x, scattered)
    assert centred.dtype == x.dtype
    assert centred.isfinite().all()  # one molecule has no atom
    assert centred.sum(1).abs().max() < 1e-5
    assert centred[4].abs().max() == 0  # and one a single atom
    assert torch.equal(remove_mean(x, scattered.bool()), centred)

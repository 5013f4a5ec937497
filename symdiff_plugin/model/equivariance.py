r"""Is a random function stochastically equivariant? A check that says where it is not (eq. 2).

A function whose draws y(x) satisfy law(y(Q . x)) = Q . law(y(x)), for every Q of the group, has

    E[y(Q . x)] = E[Q . y(x)]   and   E[y_i y_j at Q . x] = E[(Q . y(x))_i (Q . y(x))_j].

Both sides are estimated from independent draws, whose spread gives the error of their difference; what is allowed is
as many errors as chance might leave among so many comparisons. Of a :class:`Symmetrised` the draws of gamma are
compared too, with their determinants, and the composition (eq. 7) is checked to rounding by coupled draws: R0 becomes
Q R0 when x becomes Q . x. That finds a wrong order of composition; the moments find a base that is not equivariant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from symdiff_plugin.model.groups import Group, get_group, sample_haar
from symdiff_plugin.model.symmetrisation import Kinds, transform
from symdiff_plugin.model.symmetrised import Symmetrised

FALSE_ALARMS = 1e-6  # how often an equivariant model is rejected, all comparisons together
MAX_ENTRIES = 128  # of a molecule whose products are compared: all, or so many at random


class NotEquivariantError(AssertionError):
    """A model is not equivariant; the message names where it is least so."""


@dataclass(frozen=True)
class Equivariance:
    """What :func:`check_equivariance` found.

    Attributes:
        group: whose elements turned the input.
        draws: at each input.
        comparisons: moments compared.
        worst: the moment that is farthest off.
        errors: by how many standard errors.
        allowed: so many may be chance.
        coupled: the largest difference of coupled draws, in the largest entry; None where there is nothing to couple.
    """

    group: str
    draws: int
    comparisons: int
    worst: str
    errors: float
    allowed: float
    coupled: float | None


@torch.no_grad()
def check_equivariance(
    model: Callable[..., Any],
    x: Tensor,
    *args: Any,
    mask: Tensor | None = None,
    group: str | Group | None = None,
    returns: Kinds | None = None,
    takes: Mapping[str, Kinds] | None = None,
    draws: int = 4096,
    copies: int = 256,
    tolerance: float | None = None,
    **kwargs: Any,
) -> Equivariance:
    r"""Check ``model(x, *args, **kwargs)`` at x, by two elements of the group, for O(d) one of them a reflection.

    Args:
        model: a :class:`Symmetrised`, or any function of one's own, random or not.
        x: (B, ..., N, d); or (N, d), of which no ``copies`` are made.
        args, kwargs, mask: of the model. Tensors whose first dimension is x's are taken to have an entry a molecule.
        group, returns, takes: as of :class:`Symmetrised`, whose own are the default; ``group`` must be given for
            another function, which by default returns vectors.
        draws: at each of three inputs; twice as many find half as small a fault squared.
        copies: of x in one call; 1 for a model in which the molecules of a batch see each other.
        tolerance: of rounding, in the largest entry; by default the square root of the dtype's epsilon.

    Raises:
        NotEquivariantError: it is not; the message names the worst. An equivariant model meets it once in a million.
        ValueError: a shape or kind does not fit.
    """
    if isinstance(model, Symmetrised):
        group, returns = group or model.group, returns or model.returns
        takes = model.takes if takes is None else takes
    if group is None:
        raise ValueError("give the group, such as group='O(3)': only a Symmetrised model knows it")
    group, returns = get_group(group), returns or "vector"
    inputs = _Inputs(x, args, kwargs if mask is None else {**kwargs, "mask": mask}, dict(takes or {}))
    tolerance = torch.finfo(x.dtype).eps ** 0.5 if tolerance is None else tolerance
    elements = _elements(group, x)

    kernels = [(model, returns, "the output")]
    coupled = None
    if isinstance(model, Symmetrised):
        coupled = max(_coupled(model, group, inputs, Q, returns, tolerance) for Q in elements)

        def gamma(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return model.rotation(x, *args, R0=model.draw(x, *args, **kwargs), **kwargs)

        kernels.insert(0, (gamma, "frame", "the draw R of gamma"))
    copies = min(copies, draws) if x.dim() > 2 else 1
    pairs = [
        comparison
        for kernel, kinds, what in kernels
        for comparison in _compare(kernel, kinds, what, inputs, elements, -(-draws // copies), copies)
    ]
    count = sum(left.mean.numel() for left, _ in pairs)
    allowed = NormalDist().inv_cdf(1 - FALSE_ALARMS / (2 * count))
    errors, left, right, index = max((_worst(*pair, allowed, tolerance) for pair in pairs), key=lambda found: found[0])
    worst = f"{left.name(index)} is {right.mean[index]:.4g} at x, turned, and {left.mean[index]:.4g} at the turned x"
    if not errors <= allowed:
        raise NotEquivariantError(
            f"not equivariant under {group}: {worst}: {errors:.3g} standard errors apart, where {allowed:.1f} may be "
            "chance"
        )
    return Equivariance(str(group), draws, count, worst, errors, allowed, coupled)


@dataclass(frozen=True)
class _Inputs:
    x: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    takes: Mapping[str, Kinds]

    def turned(self, Q: Tensor) -> _Inputs:
        kwargs = {
            name: transform(self.takes[name], Q, value, name) if name in self.takes and value is not None else value
            for name, value in self.kwargs.items()
        }
        return _Inputs(transform("vector", Q, self.x, "x"), self.args, kwargs, self.takes)

    def repeated(self, copies: int) -> _Inputs:
        def repeat(value: Any) -> Any:
            if isinstance(value, Tensor) and value.dim() and value.shape[0] == self.x.shape[0] and copies > 1:
                return value.repeat(copies, *(1,) * (value.dim() - 1))
            return value

        kwargs = {name: repeat(value) for name, value in self.kwargs.items()}
        return _Inputs(repeat(self.x), tuple(map(repeat, self.args)), kwargs, self.takes)


def _elements(group: Group, x: Tensor) -> list[Tensor]:
    """Two elements for each molecule; of O(d), a rotation and a reflection."""
    kind: dict[str, Any] = {"device": x.device, "dtype": torch.promote_types(x.dtype, torch.float32)}
    first, second = (sample_haar(x.shape[:-2], group.dims, special=True, **kind) for _ in range(2))
    return [first, second if group.special else -second if group.dims == 3 else second.flip(-1)]


def _coupled(model: Symmetrised, group: Group, inputs: _Inputs, Q: Tensor, returns: Kinds, tolerance: float) -> float:
    """The largest difference of coupled draws, in the largest entry."""
    there = inputs.turned(Q)
    R0 = model.draw(inputs.x, *inputs.args, **inputs.kwargs)
    outputs = []
    devices = [inputs.x.device] if inputs.x.device.type == "cuda" else []
    for place, R in ((inputs, R0), (there, Q @ R0)):
        with torch.random.fork_rng(devices):  # whatever else is random, in the same way
            outputs.append(model.given_draws(place.x, *place.args, R0=R, **place.kwargs))
    found = 0.0
    wanted = transform(returns, Q, outputs[0])
    for (name, _, a), (_, _, b) in zip(_leaves(returns, outputs[1]), _leaves(returns, wanted), strict=True):
        largest = b.abs().max().clamp(min=torch.finfo(b.dtype).tiny)
        difference = ((a - b).abs().max() / largest).item()
        if not difference <= tolerance:
            raise NotEquivariantError(
                f"not equivariant under {group}: in coupled draws (R0 becomes Q R0 as x becomes Q . x) {name} differs "
                f"by {difference:.2g} of its largest entry, where {tolerance:.2g} is rounding: an argument that turns "
                "is not in `takes`, an output is not what `returns` says, or eq. 7 is composed in another order"
            )
        found = max(found, difference)
    return found


def _leaves(kinds: Kinds, y: Any, name: str = "the output") -> Iterator[tuple[str, str, Tensor]]:
    if isinstance(kinds, Mapping):
        for key, kind in kinds.items():
            yield from _leaves(kind, y[key], f"{name}[{key!r}]")
    elif isinstance(kinds, Sequence) and not isinstance(kinds, str):
        for i, kind in enumerate(kinds):
            yield from _leaves(kind, y[i], f"{name}[{i}]")
    elif isinstance(y, Tensor) and not y.is_complex():
        yield name, kinds, y if y.is_floating_point() else y.double()
    else:
        raise ValueError(f"{name} must be a real tensor to be compared, not {getattr(y, 'dtype', type(y).__name__)}")


class _Moments:
    """First and second moments of a molecule's entries, over draws: sums of what will be (B, M) statistics."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.n = 0

    def add(self, kinds: Kinds, y: Any, copies: int, molecules: int) -> None:
        columns, self.shapes = [], []
        for name, kind, leaf in _leaves(kinds, y, self.what):
            if leaf.dim() == 0 or (molecules and leaf.shape[0] != copies * molecules):
                raise ValueError(f"{name} has no entry for each molecule: leave it out of what is checked")
            split = leaf.reshape(copies, max(molecules, 1), *leaf.shape[1 if molecules else 0 :]).double()
            parts = [(name, split)]
            if kind == "frame":
                parts.append((f"the determinant of {name}", torch.linalg.det(split)))
            for part, values in parts:
                columns.append(values.flatten(2) if values.dim() > 2 else values.unsqueeze(-1))
                self.shapes.append((part, tuple(values.shape[2:]), columns[-1].shape[-1]))
        entries = torch.cat(columns, dim=-1).transpose(0, 1)  # (B, copies, D)
        if not entries.isfinite().all():
            raise NotEquivariantError(f"{self.what} is not finite")
        if not self.n:
            self.chosen = _chosen(entries.shape[-1]).to(entries.device)
            self.sums = [entries.new_zeros(())] * 4
        n = len(self.chosen)
        some = entries[..., self.chosen]
        powers = (entries, entries.square())
        sums = [*(y.sum(1) for y in powers), *(y.mT @ y for y in (some, some.square()))]
        self.sums = [before + now for before, now in zip(self.sums, sums, strict=True)]
        self.n += copies
        self.i, self.j = torch.triu_indices(n, n, device=entries.device)

    def finish(self) -> None:
        """The means (B, M) of entries and products, the variances of these means, and what rounding is measured by."""
        first, square, second, fourth = (total / self.n for total in self.sums)
        self.mean = torch.cat([first, second[:, self.i, self.j]], dim=1)
        squares = torch.cat([square, fourth[:, self.i, self.j]], dim=1)
        self.variance = (squares - self.mean.square()).clamp(min=0) / self.n
        largest = square.amax()  # square of the largest root mean square
        self.scale = torch.cat([largest.sqrt().expand(first.shape[1]), largest.expand(len(self.i))])

    def name(self, index: tuple[int, int]) -> str:
        molecule, column = index
        entries = sum(size for _, _, size in self.shapes)
        where = f" of molecule {molecule}"
        if column < entries:
            return f"the mean of {self._entry(column)}{where}"
        pair = column - entries
        first, second = (self._entry(int(self.chosen[k[pair]])) for k in (self.i, self.j))
        return f"the mean product of {first} and {second}{where}"

    def _entry(self, column: int) -> str:
        for name, shape, size in self.shapes:
            if column < size:
                at = [int(i) for i in torch.unravel_index(torch.tensor(column), shape)] if shape else []
                return f"{name} {at}" if at else name
            column -= size
        raise IndexError(column)


def _chosen(entries: int) -> Tensor:
    """The entries whose products are compared."""
    # Which statistics are looked at is no draw of the model.
    return torch.randperm(entries, generator=torch.Generator().manual_seed(0))[:MAX_ENTRIES].sort().values


def _compare(
    kernel: Callable[..., Any], kinds: Kinds, what: str,
    inputs: _Inputs, elements: list[Tensor], calls: int, copies: int,
) -> list[tuple[_Moments, _Moments]]:  # fmt: skip
    """For each element Q, the moments at Q . x, and those of Q . y at x."""
    molecules = inputs.x.shape[0] if inputs.x.dim() > 2 else 0
    here = inputs.repeated(copies)
    there = [inputs.turned(Q).repeated(copies) for Q in elements]
    repeated = [Q.repeat(copies, *(1,) * (Q.dim() - 1)) if molecules else Q for Q in elements]
    results = [(_Moments(what), _Moments(what)) for _ in elements]
    for _ in range(calls):
        y = kernel(here.x, *here.args, **here.kwargs)
        for (left, right), place, Q in zip(results, there, repeated, strict=True):
            left.add(kinds, kernel(place.x, *place.args, **place.kwargs), copies, molecules)
            right.add(kinds, transform(kinds, Q, y, what), copies, molecules)
    for moments in (moments for pair in results for moments in pair):
        moments.finish()
    return results


def _worst(
    left: _Moments, right: _Moments, allowed: float, tolerance: float
) -> tuple[float, _Moments, _Moments, tuple[int, int]]:
    """The largest difference in standard errors, and where; the rounding that may be counts as what is allowed."""
    rounding = tolerance * right.scale / allowed
    errors = (left.mean - right.mean).abs() / ((left.variance + right.variance).sqrt() + rounding + 1e-300)
    return errors.max().item(), left, right, divmod(int(errors.argmax()), errors.shape[1])

r"""Any network, made stochastically equivariant under rotations and reflections (Theorem 1).

    model = Symmetrised(network, group="O(3)")                     # gamma = Haar (SymDiff-H)
    model = Symmetrised(network, group="SO(3)", frame=f_theta)     # gamma = sym_Haar(f_theta), eq. 7
    model = Symmetrised(network, base="pca")                       # gamma = a random one of the PCA frames

Each call is one draw: R0 of the base case gamma_0, R = R0 f_theta(R0^{-1} . x), and R . network(R^{-1} . x). Its law at
Q . x is Q times its law at x, for every Q of the group and whatever network and f_theta are; a permutation under which
they are equivariant and invariant, the result is equivariant under too. Translations are the network's affair: R turns
about the origin.

Eq. 7 may be repeated: ``frame=[f1, f2]`` is sym_{sym_{gamma_0}(f1)}(f2), whose draw is R0 f1 f2, each f seeing x as
turned back by what stands before it. The same comes from one ``Symmetrised`` as another's network,
sym_{gamma_0}(sym_{f1}(k)), or, with ``returns="frame"``, as its base or frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from symdiff_plugin.model.groups import Group, get_group
from symdiff_plugin.model.pca_frames import pca_frames
from symdiff_plugin.model.symmetrisation import Kinds, check_kinds, symmetrise, transform


def _haar(x: Tensor, mask: Tensor | None, group: Group) -> Tensor:
    return group.sample_haar(*x.shape[:-2], device=x.device, dtype=x.dtype)


BASES: dict[str, Callable[[Tensor, Tensor | None, Group], Tensor]] = {"haar": _haar, "pca": pca_frames}


class _Function(nn.Module):
    """A function among modules."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def _module(function: Callable[..., Any]) -> nn.Module:
    return function if isinstance(function, nn.Module) else _Function(function)


class Symmetrised(nn.Module):
    r"""``network``, symmetrised by gamma (Theorem 1).

    Args:
        network: ``network(x, *args, **kwargs)``, x (\*batch, N, d), returns what ``returns`` says. It is handed the
            mask as ``mask=``, where there is one. It may be random itself.
        group: ``O(3)``, ``SO(3)`` (which keeps chirality), ``O(2)`` or ``SO(2)``; it gives d.
        frame: f_theta of eq. 7, called as the network is: a raw (\*batch, d, d) matrix, which Gram-Schmidt makes an
            element of the group, or such an element; random or not. A sequence of them repeats eq. 7. None: R = R0.
        base: gamma_0: ``haar``, ``pca`` (:func:`~symdiff_plugin.model.pca_frames.pca_frames`), or a sampler of one's
            own, called as a frame is, whose law at Q . x must be Q times that at x (an equivariant matrix will do: its
            columns are vectors). :func:`~symdiff_plugin.model.equivariance.check_equivariance` finds one that is not.
        returns: ``vector`` (\*batch, ..., d), ``invariant``, ``matrix`` (\*batch, ..., d, d; R M R^T), ``frame`` (the
            same shape; R F), or a tuple or dictionary of these, such as ``{"force": "vector", "energy": "invariant"}``.
        takes: likewise, keyword arguments that turn with x: ``{"velocity": "vector"}``. All others are invariant.

    Raises:
        ValueError: an unknown group, base or kind.
    """

    def __init__(
        self,
        network: Callable[..., Any],
        group: str | Group = "O(3)",
        frame: Callable[..., Tensor] | Sequence[Callable[..., Tensor]] | None = None,
        base: str | Callable[..., Tensor] = "haar",
        returns: Kinds = "vector",
        takes: Mapping[str, Kinds] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(base, str) and base not in BASES:
            raise ValueError(f"unknown base {base!r}; choose one of {', '.join(BASES)}, or give a sampler")
        self.group = get_group(group)
        self.returns = check_kinds(returns)
        self.takes = dict(takes or {})
        check_kinds(self.takes)
        self.network = _module(network)
        frames = () if frame is None else (frame,) if callable(frame) else frame
        self.frames = nn.ModuleList(map(_module, frames))
        self.base = base if isinstance(base, str) else _module(base)

    def forward(self, x: Tensor, *args: Any, mask: Tensor | None = None, **kwargs: Any) -> Any:
        r"""One draw at x; all that is random comes from torch's global generator of x's device.

        Args:
            x: (\*batch, N, d), of a floating-point type. In bfloat16 or float16, R is drawn and applied in float32.
            \*args, \*\*kwargs: of the network and the frames.
            mask: (\*batch, N) or (\*batch, N, 1), true or 1 at atoms; None: all are. It is the network's to keep its
                padding at zero.

        Returns:
            What the network returns, with its shapes and dtypes.

        Raises:
            ValueError: x, mask, a frame or the network's output has another shape than it must.
        """
        R0 = self.draw(x, *args, mask=mask, **kwargs)
        return self.given_draws(x, *args, R0=R0, mask=mask, **kwargs)

    def draw(self, x: Tensor, *args: Any, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        r"""R0 (\*batch, d, d) ~ gamma_0 at x."""
        self._check(x, mask)
        if isinstance(self.base, str):
            return BASES[self.base](x.to(_geometry(x)), mask, self.group)
        return self._element("base", self.base(x, *args, **_with(mask, kwargs)), x)

    def rotation(self, x: Tensor, *args: Any, R0: Tensor, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        r"""R (\*batch, d, d), the draw of gamma given that of gamma_0; frames draw what they draw."""
        self._check(x, mask)
        d = self.group.dims
        if R0.shape != (*x.shape[:-2], d, d):
            raise ValueError(f"R0 must be {(*x.shape[:-2], d, d)}, not {tuple(R0.shape)}")
        R = R0.to(_geometry(x))
        for frame in self.frames:
            R = symmetrise(partial(self._frame, frame, R, args, mask, kwargs), R, x, "frame")
        return R

    def given_draws(self, x: Tensor, *args: Any, R0: Tensor, mask: Tensor | None = None, **kwargs: Any) -> Any:
        r"""The result as a function of R0 (\*batch, d, d), the draw of gamma_0; otherwise as :meth:`forward`.

        If x becomes Q . x and R0 becomes Q R0, the result becomes Q times what it was, to rounding, where the network
        and the frames are not random, or draw the same again.
        """
        R = self.rotation(x, *args, R0=R0, mask=mask, **kwargs)
        return symmetrise(
            lambda y: self.network(y, *args, **_with(mask, self._turned_back(R, kwargs))), R, x, self.returns
        )

    def extra_repr(self) -> str:
        base = self.base if isinstance(self.base, str) else "its own"
        return f"group={self.group}, base={base}, returns={self.returns}"

    def _frame(
        self, frame: nn.Module, R: Tensor, args: tuple[Any, ...], mask: Tensor | None, kwargs: dict[str, Any], y: Tensor
    ) -> Tensor:
        return self._element("frame", frame(y, *args, **_with(mask, self._turned_back(R, kwargs))), y)

    def _turned_back(self, R: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments as the network sees them."""
        return {
            name: transform(self.takes[name], R.mT, value, name) if name in self.takes and value is not None else value
            for name, value in kwargs.items()
        }

    def _element(self, what: str, a: Tensor, x: Tensor) -> Tensor:
        wanted = (*x.shape[:-2], self.group.dims, self.group.dims)
        if not isinstance(a, Tensor) or a.shape != wanted:
            found = tuple(a.shape) if isinstance(a, Tensor) else type(a).__name__
            raise ValueError(f"the {what} must give a tensor {wanted}, not {found}")
        return self.group.orthogonalise(a.to(_geometry(x)))

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        if x.dim() < 2 or x.shape[-1] != self.group.dims:
            raise ValueError(f"x must be (..., N, {self.group.dims}), as {self.group} turns it, not {tuple(x.shape)}")
        if not x.is_floating_point():
            raise ValueError(f"x must be of a floating-point type, not {x.dtype}")
        if mask is not None and mask.shape not in (x.shape[:-1], (*x.shape[:-1], 1)):
            raise ValueError(f"mask must be {tuple(x.shape[:-1])}, with or without a 1 behind, not {tuple(mask.shape)}")


def _geometry(x: Tensor) -> torch.dtype:
    """The type of R: x's, but float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)


def _with(mask: Tensor | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    return kwargs if mask is None else {**kwargs, "mask": mask}

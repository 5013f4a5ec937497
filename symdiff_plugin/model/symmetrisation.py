r"""Stochastic symmetrisation over O(3) and its like (Theorem 1; equations 7 and 8).

A Markov kernel k that is equivariant under permutations of the atoms becomes equivariant under O(3) too by

    sym_gamma(k):   R ~ gamma(dR | x),   y ~ k(dy | R^{-1} . x),   return R . y

for any gamma : x -> O(3) that is equivariant itself, gamma(dR | Q . x) = Q gamma(dR | x), and invariant under
permutations. The Haar measure is one such gamma. Another is sym_{gamma_0}(gamma_1), with gamma_0 the Haar measure
and gamma_1 the law of f_theta(x, eta), O(3) acting on itself by multiplication from the left:

    R0 ~ Haar,   R = R0 f_theta(R0^{-1} . x, eta).                                             (eq. 7)

f_theta may be anything: it is the composition that makes gamma equivariant, for Q . x with Q R0 in R0's place gives
Q R, and Q R0 is Haar distributed when R0 is. Positions are rows, so R . x = x R^T and R^{-1} . x = x R.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from symdiff_plugin.model.dit import DiT, xavier_uniform
from symdiff_plugin.model.groups import gram_schmidt
from symdiff_plugin.packed.atoms import AtomLayout
from symdiff_plugin.packed.precision import autocast


def act(R: Tensor, x: Tensor) -> Tensor:
    """R . x, for R (..., 3, 3) and x (..., N, 3)."""
    with autocast(x.device.type, enabled=False):  # geometry, in full precision whatever autocast says
        return x @ R.mT


def act_inverse(R: Tensor, x: Tensor) -> Tensor:
    """R^{-1} . x, for orthogonal R (..., 3, 3) and x (..., N, 3)."""
    with autocast(x.device.type, enabled=False):
        return x @ R


def compose(R0: Tensor, f: Tensor, release: bool = False) -> Tensor:
    """R = R0 f, the draw of sym_{gamma_0}(gamma_1) (eq. 7); all (..., 3, 3).

    With ``release``, the order of the authors' release, f R0^T, of which no equivariance follows.
    """
    with autocast(f.device.type, enabled=False):
        return f @ R0.mT if release else R0 @ f


def _act_on_matrices(R: Tensor, m: Tensor) -> Tensor:
    with autocast(m.device.type, enabled=False):
        return R @ m @ R.mT


# How the group acts on a space: on rows of vectors, on matrices such as a polarisability by conjugation, and on frames,
# itself among them, from the left. With the dimensions of one element. What is invariant stays as it is.
_ACTIONS: dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "vector": (1, act),
    "matrix": (2, _act_on_matrices),
    "frame": (2, compose),
}
KINDS = ("vector", "invariant", "matrix", "frame")
# What a kernel returns: one of KINDS, or a tuple or dictionary of them.
Kinds: TypeAlias = "str | Sequence[Kinds] | Mapping[str, Kinds]"


def transform(kinds: Kinds, R: Tensor, y: Any, what: str = "the output") -> Any:
    r"""R . y, on a tensor or on a tuple or dictionary of tensors.

    Args:
        kinds: ``vector`` (y is (\*batch, ..., d)), ``invariant`` (anything), ``matrix`` or ``frame``
            (\*batch, ..., d, d), or a tuple or dictionary of these: the structure of y.
        R: (\*batch, d, d).
        y: its tensors keep their dtype.
        what: what the messages call y.

    Raises:
        ValueError: y is not what ``kinds`` says.
    """
    if isinstance(kinds, Mapping):
        if not isinstance(y, Mapping) or set(y) != set(kinds):
            found = f"a dictionary of {', '.join(map(str, y))}" if isinstance(y, Mapping) else _described(y)
            raise ValueError(f"{what} must be a dictionary of {', '.join(kinds)}, as declared, not {found}")
        return {key: transform(kind, R, y[key], f"{what}[{key!r}]") for key, kind in kinds.items()}
    if not isinstance(kinds, str):
        if not isinstance(y, tuple | list) or len(y) != len(kinds):
            raise ValueError(f"{what} must be a tuple of {len(kinds)}, as declared, not {_described(y)}")
        return tuple(transform(kind, R, y[i], f"{what}[{i}]") for i, kind in enumerate(kinds))
    if kinds == "invariant":
        return y
    rank, action = _ACTIONS[kinds]
    batch = R.shape[:-2]
    wanted = R.shape[-1:] * rank
    if not isinstance(y, Tensor) or y.shape[: len(batch)] != batch or y.shape[len(batch) :][-rank:] != wanted:
        shape = ", ".join([*map(str, batch), "...", *map(str, wanted)])
        raise ValueError(f"{what} must be a tensor ({shape}), as a {kinds} is, not {_described(y)}")
    rows = y.unsqueeze(-2) if y.dim() == len(batch) + 1 else y  # one vector for each R
    each = R.reshape(*batch, *(1,) * (rows.dim() - len(batch) - 2), *R.shape[-2:])
    return action(each, rows.to(R.dtype)).to(y.dtype).reshape(y.shape)


def check_kinds(kinds: Kinds) -> Kinds:
    """``kinds``, if :func:`transform` takes them.

    Raises:
        ValueError: a name in it is none of ``KINDS``.
    """
    for kind in kinds.values() if isinstance(kinds, Mapping) else () if isinstance(kinds, str) else kinds:
        check_kinds(kind)
    if isinstance(kinds, str) and kinds not in KINDS:
        raise ValueError(f"unknown kind {kinds!r}; what a network returns is one of {', '.join(KINDS)}")
    return kinds


def symmetrise(k: Callable[[Tensor], Any], R: Tensor, x: Tensor, kinds: Kinds = ("vector", "invariant")) -> Any:
    """One draw of sym_gamma(k) at x, given the draw R of gamma (Theorem 1).

    With ``kinds="frame"`` it is eq. 7: k is then the sampler of gamma_1, R the draw of gamma_0, the result that of
    sym_{gamma_0}(gamma_1).

    Args:
        k: positions (..., N, 3) -> what ``kinds`` says; by default a vector (..., N, 3) and features (..., N, C) of
            each atom: O(3) turns the former and leaves the latter.
        R: (..., 3, 3).
        x: (..., N, 3).
        kinds: of :func:`transform`.
    """
    return transform(kinds, R, k(act_inverse(R, x.to(R.dtype)).to(x.dtype)))


def _described(y: Any) -> str:
    if isinstance(y, Tensor):
        return f"{tuple(y.shape)}"
    return f"{len(y)} entries" if isinstance(y, tuple | list) else f"a {type(y).__name__}"


class LearnedRotation(nn.Module):
    """f_theta (Algorithm 4): positions, noise and Psi to an element of O(3), the same for every order of the atoms.

    Args:
        in_features: 3 + m_noise + n_emb.
        hidden_size, depth, num_heads, mlp_ratio, dropout: of its DiT.
        dec_hidden_features: hidden width of the last two layers.
        special: give the matrix the determinant 1: SO(3).
        orthogonalise_rows: orthogonalise the rows of the matrix instead of its columns, QR(A^T)^T (``--fix_qr`` of the
            authors' release).
    """

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        dec_hidden_features: int,
        dropout: float = 0.0,
        orthogonalise_rows: bool = False,
        special: bool = False,
    ) -> None:
        super().__init__()
        self.special = special
        self.orthogonalise_rows = orthogonalise_rows
        self.x_embedder = nn.Linear(in_features, hidden_size)  # W_G
        self.dit = DiT(hidden_size, depth, num_heads, mlp_ratio, out_features=None, dropout=dropout)
        self.fc1 = nn.Linear(hidden_size, dec_hidden_features)  # W_1
        self.fc2 = nn.Linear(dec_hidden_features, 9)  # W_2
        for linear in (self.x_embedder, self.fc1, self.fc2):
            xavier_uniform(linear)

    def matrix(self, features: Tensor, t: Tensor, layout: AtomLayout) -> Tensor:
        """(T, in_features), (B,) -> (B, 3, 3), before orthogonalisation."""
        hidden = self.dit(self.x_embedder(features), t, layout)  # (T, hidden)
        pooled = layout.mean(hidden)  # (B, hidden)
        # The rotation is geometry, and these layers have one row a molecule: full precision, whatever autocast says.
        with autocast(features.device.type, enabled=False):
            return self.fc2(F.gelu(self.fc1(pooled))).view(-1, 3, 3)

    def forward(self, features: Tensor, t: Tensor, layout: AtomLayout) -> Tensor:
        """
        Args:
            features: (T, in_features), rows [x, eta, Psi] of packed atoms.
            t: (B,) times.

        Returns:
            (B, 3, 3) in O(3) (SO(3) if ``special``), of t's dtype.
        """
        return self.orthogonalise(self.matrix(features, t, layout))

    def orthogonalise(self, a: Tensor) -> Tensor:
        """The element of the group that Gram-Schmidt makes of :meth:`matrix`, (..., 3, 3)."""
        return gram_schmidt(a.mT, self.special).mT if self.orthogonalise_rows else gram_schmidt(a, self.special)

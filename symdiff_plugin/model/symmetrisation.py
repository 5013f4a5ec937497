r"""Stochastic symmetrisation over O(3) (Theorem 1; equations 7 and 8).

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

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from symdiff_plugin.model.dit import DiT, xavier_uniform
from symdiff_plugin.model.groups import gram_schmidt
from symdiff_plugin.packed.atoms import AtomLayout
from symdiff_plugin.packed.precision import autocast


def act(R: Tensor, x: Tensor) -> Tensor:
    """R . x, for R (B, 3, 3) and x (B, N, 3)."""
    return x @ R.mT


def act_inverse(R: Tensor, x: Tensor) -> Tensor:
    """R^{-1} . x, for orthogonal R (B, 3, 3) and x (B, N, 3)."""
    return x @ R


def symmetrise(k: Callable[[Tensor], tuple[Tensor, Tensor]], R: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """One draw of sym_gamma(k) at x, given the draw R of gamma (Theorem 1).

    Args:
        k: positions (B, N, 3) -> a vector (B, N, 3) and features (B, N, C) of each atom; O(3) turns the former
            and leaves the latter.
        R: (B, 3, 3).
        x: (B, N, 3).
    """
    vectors, features = k(act_inverse(R, x))
    return act(R, vectors), features


def compose(R0: Tensor, f: Tensor, release: bool = False) -> Tensor:
    """R = R0 f, the draw of sym_{gamma_0}(gamma_1) (eq. 7); all (B, 3, 3).

    With ``release``, the order of the authors' release, f R0^T, of which no equivariance follows.
    """
    return f @ R0.mT if release else R0 @ f


class LearnedRotation(nn.Module):
    """f_theta (Algorithm 4): positions, noise and Psi to an element of O(3), the same for every order of the atoms.

    Args:
        in_features: 3 + m_noise + n_emb.
        hidden_size, depth, num_heads, mlp_ratio, dropout: of its DiT.
        dec_hidden_features: hidden width of the last two layers.
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
    ) -> None:
        super().__init__()
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
            (B, 3, 3) in O(3), of t's dtype.
        """
        a = self.matrix(features, t, layout)
        return gram_schmidt(a.mT).mT if self.orthogonalise_rows else gram_schmidt(a)

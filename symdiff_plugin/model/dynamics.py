r"""EDM's dynamics contract: the predicted noise of a noisy molecule.

EDM calls ``dynamics._forward(t, xh, node_mask, edge_mask, context)`` in training and at every denoising step. Here
that is one draw of the symmetrised network (Algorithm 1, lines 3-5; Algorithm 2, lines 3-5):

    R0 ~ Haar(O(3)),   eta ~ N_U(0, I)
    R = R0 f_theta(R0^{-1} . x, eta, t)
    eps_x, eps_h = epsilon_theta(R^{-1} . x, h, t)
    return [R . eps_x, eps_h]

SymDiff-H leaves f_theta out (R = R0), a plain DiT also R0 (R = I). R0 may also be one of the molecule's PCA frames, and
the group SO(3). The symmetrisation is :mod:`~symdiff_plugin.model.symmetrisation`'s, as for any network of one's own.
epsilon_theta is the DiT with Psi (Algorithm 3), or a network of one's own that takes its place, ``backbone``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from symdiff_plugin.model.dit import DiT, DiTBlock, xavier_uniform
from symdiff_plugin.model.groups import get_group, sample_haar
from symdiff_plugin.model.pair_features import GaussianPairEmbedding
from symdiff_plugin.model.pca_frames import pca_frames
from symdiff_plugin.model.symmetrisation import LearnedRotation, act_inverse, compose, symmetrise
from symdiff_plugin.packed.atoms import AtomLayout, LayoutCache, remove_mean
from symdiff_plugin.packed.precision import autocast
from symdiff_plugin.presets import Architecture, get_architecture

N_DIMS = 3


class DiTDynamics(nn.Module):
    """epsilon_theta alone (Algorithm 3): equivariant under permutations of the atoms, not under O(3).

    Args:
        architecture: sizes and switches.
        in_node_nf: nf, features of an atom (types and, if any, the charge).
        context_node_nf: context features of an atom, for conditional models.
        backbone: epsilon_theta in the DiT's place, none of whose parameters the model has then. Called as
            ``backbone(inputs, t, node_mask)``, with rows [x, h, context] (B, N, 3 + nf + context_node_nf), times (B,)
            in [0, 1] and the mask (B, N, 1) of 0 and 1, it returns (B, N, 3 + nf). It should let no atom see padding,
            nor depend on the atoms' order; what it leaves on padding, and the mean of its first three columns, is
            taken away.

    Raises:
        ValueError: a backbone for the authors' released model, which is its DiT.
    """

    def __init__(
        self, architecture: Architecture, in_node_nf: int, context_node_nf: int = 0, backbone: nn.Module | None = None
    ) -> None:
        super().__init__()
        a = architecture
        self.architecture = a
        self.in_node_nf = in_node_nf
        self.context_node_nf = context_node_nf
        self.backbone = backbone
        if backbone is not None and a.is_release:
            raise ValueError(f"compat={a.compat!r} is for the released models: they take no backbone")
        self._has_psi = backbone is None or a.frame == "learned"  # f_theta sees it too
        if self._has_psi:
            self.pair_embedding = GaussianPairEmbedding(a.K, a.hidden_size - a.xh_hidden_size, release=a.is_release)
        if backbone is None:
            self.xh_embedder = nn.Linear(N_DIMS + in_node_nf + context_node_nf, a.xh_hidden_size)  # W_I
            self.dit = DiT(
                a.hidden_size, a.depth, a.num_heads, a.mlp_ratio,
                out_features=N_DIMS + in_node_nf, dropout=a.mlp_dropout,
            )  # fmt: skip
            xavier_uniform(self.xh_embedder)
        if self._has_psi:
            xavier_uniform(self.pair_embedding)
        self._compiled: tuple[str, str] | None = None
        self._layouts = LayoutCache()
        self._held: dict[str, Tensor] | None = None  # of a trajectory that keeps its draws

    @property
    def depends_on_padding(self) -> bool:
        """Whether a molecule's outputs depend on the length that its batch is padded to, as in the release's models."""
        return self.architecture.is_release

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The same as :meth:`_forward`, which is EDM's name for it."""
        return self._forward(*args, **kwargs)

    def _forward(
        self,
        t: Tensor,
        xh: Tensor,
        node_mask: Tensor,
        edge_mask: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """The predicted noise, with fresh draws of what is random.

        Args:
            t: (B, 1) in [0, 1], or one element for the whole batch; of a floating-point type: integers are refused,
                for a step's number is not a time.
            xh: (B, N, 3 + nf), positions first, with zero centre of mass, zero on padding; of the weights' dtype.
            node_mask: (B, N, 1) of 0 and 1, of any dtype.
            edge_mask: unused; every atom of a molecule sees every other.
            context: (B, N, context_node_nf) of the weights' dtype, or None when that is 0.

        Returns:
            (B, N, 3 + nf), zero on padding; its first three columns have zero centre of mass.

        Raises:
            ValueError: a tensor has another shape or dtype than the model was built for; nothing was drawn then.
        """
        self._check(t, xh, node_mask, context)
        draws = self._held or self.draw(xh, node_mask)
        if self._held is not None:
            self._held = draws
        return self.given_draws(t, xh, node_mask, context, **draws)

    def draw(self, xh: Tensor, node_mask: Tensor) -> dict[str, Tensor]:
        """The random draws of one call, as keyword arguments of :meth:`given_draws`."""
        return {}

    def given_draws(
        self,
        t: Tensor,
        xh: Tensor,
        node_mask: Tensor,
        context: Tensor | None = None,
        *,
        R0: Tensor | None = None,
        eta: Tensor | None = None,
    ) -> Tensor:
        """The predicted noise as a function of its draws; arguments and result as in :meth:`_forward`.

        Args:
            R0: (B, 3, 3) in the group; not needed, and not used, by a plain DiT.
            eta: (B, N, m_noise); needed by a learned gamma alone.
        """
        self._check(t, xh, node_mask, context)
        layout = self._layouts(node_mask)
        times = _times(t, xh)  # (B,), or (1,) if it is the same for all
        t = times * self.architecture.time_scale
        x, h = xh[..., :N_DIMS], xh[..., N_DIMS:]
        packed = layout.pack(x)
        # (T, n_emb), O(3)-invariant: serves every R. Of no columns where nothing sees it.
        psi = self.pair_embedding(packed, layout) if self._has_psi else packed[:, :0]
        R = self.rotation(x, psi, t, layout, R0, eta)

        def epsilon(x: Tensor) -> tuple[Tensor, Tensor]:
            inputs = torch.cat([x, h] if context is None else [x, h, context], dim=-1)
            if self.backbone is None:
                out = layout.unpack(self.network(layout.pack(inputs), psi, t, layout))  # (B, N, 3 + nf)
            else:
                out = self._of_backbone(self.backbone, inputs, times.expand(len(x)), node_mask)
            return remove_mean(out[..., :N_DIMS], node_mask), out[..., N_DIMS:]

        vectors, features = epsilon(x) if R is None else symmetrise(epsilon, R, x)
        return torch.cat([vectors, features], dim=-1)

    def network(self, inputs: Tensor, psi: Tensor, t: Tensor, layout: AtomLayout) -> Tensor:
        """epsilon_theta before its projection: rows [x, h, context] (T, 3 + nf + context) -> (T, 3 + nf)."""
        with self.autocast(inputs):
            z = torch.cat([self.xh_embedder(inputs), psi], dim=-1)  # (T, n_z + n_emb)
            return self.dit(z, t, layout).to(inputs.dtype)

    def _of_backbone(self, backbone: nn.Module, inputs: Tensor, times: Tensor, node_mask: Tensor) -> Tensor:
        """(B, N, 3 + nf), zero on padding, from rows [x, h, context] (B, N, 3 + nf + context) and times (B,)."""
        with self.autocast(inputs):
            out = backbone(inputs, times, node_mask)
        wanted = (*inputs.shape[:2], N_DIMS + self.in_node_nf)
        if out.shape != wanted:
            raise ValueError(f"the backbone must give {wanted}, 3 + in_node_nf columns, not {tuple(out.shape)}")
        return out.to(inputs.dtype) * node_mask.to(inputs.dtype)

    def autocast(self, like: Tensor) -> AbstractContextManager[None]:
        """Where the networks, and nothing of the geometry, compute in ``architecture.precision``."""
        return autocast(like.device.type, enabled=self.architecture.precision == "bf16")

    def compile_blocks(self, mode: str = "default", backend: str = "inductor") -> None:
        """Put the blocks of the DiTs through ``torch.compile``, here and in copies to be made of this module.

        All blocks of a DiT share what is compiled, and the number of tokens may change from batch to batch; attention,
        whose shapes do, is left as it is.

        Args:
            mode, backend: of ``torch.compile``; the mode ``reduce-overhead`` means CUDA graphs.
        """
        self._compiled = (mode, backend)
        options = {"mode": mode} if backend == "inductor" else {}  # the other backends know no modes
        for module in self.modules():
            if isinstance(module, DiTBlock):
                module.attn.leave_uncompiled()
                module.compile(backend=backend, dynamic=True, **options)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        compiled = self.__dict__.get("_compiled")
        if compiled is not None:  # copies leave out what was compiled
            self.compile_blocks(*compiled)

    @contextmanager
    def sampling(self, hold_frame: bool = False) -> Iterator[None]:
        """Tell that until the end of the block the weights do not change, as in EDM's loop over the denoising steps.

        The bfloat16 copies of the weights are then made once, not at every call: autocast keeps them until its
        outermost block ends, and this is a block around the calls' own. Not for training.

        Args:
            hold_frame: let all calls have the draws of the first, R0 and eta; all are then of its batch.
        """
        device = next(self.parameters(), torch.empty(0)).device
        self._held = {} if hold_frame else None
        try:
            with autocast(device.type, enabled=False):
                yield
        finally:
            self._held = None

    def rotation(
        self, x: Tensor, psi: Tensor, t: Tensor, layout: AtomLayout, R0: Tensor | None, eta: Tensor | None
    ) -> Tensor | None:
        """The draw R (B, 3, 3) of gamma at x, or None for the identity."""
        return None

    def extra_repr(self) -> str:
        return f"{self.architecture}, in_node_nf={self.in_node_nf}, context_node_nf={self.context_node_nf}"

    def _check(self, t: Tensor, xh: Tensor, node_mask: Tensor, context: Tensor | None) -> None:
        width = N_DIMS + self.in_node_nf
        if xh.dim() != 3 or xh.shape[-1] != width:
            raise ValueError(f"xh must be (B, N, {width}): 3 + in_node_nf columns, not {tuple(xh.shape)}")
        if node_mask.shape != (*xh.shape[:2], 1):
            raise ValueError(f"node_mask must be {(*xh.shape[:2], 1)}, not {tuple(node_mask.shape)}")
        wanted = (*xh.shape[:2], self.context_node_nf)
        if self.context_node_nf > 0 if context is None else context.shape != wanted:
            found = "no context" if context is None else f"context of shape {tuple(context.shape)}"
            raise ValueError(f"the model takes context_node_nf = {self.context_node_nf}, but was given {found}")
        if t.numel() not in (1, len(xh)):
            raise ValueError(f"t must be ({len(xh)}, 1) or have one element, not {tuple(t.shape)}")
        if not t.is_floating_point():
            raise ValueError(f"t must be times in [0, 1], not {t.dtype}: divide the number of a step by T")
        dtype = self.xh_embedder.weight.dtype if self.backbone is None else xh.dtype
        for name, tensor in (("xh", xh), ("context", context)):
            if tensor is not None and tensor.dtype != dtype:
                raise ValueError(f"{name} must be {dtype}, as the weights are, not {tensor.dtype}")


class SymDiffDynamics(DiTDynamics):
    """epsilon_theta symmetrised by gamma: stochastically equivariant under E(3) and permutations (Theorem 1).

    Args:
        architecture: its ``frame`` is ``learned`` (gamma = sym_{gamma_0}(f_theta)) or ``haar`` (gamma = gamma_0), with
            gamma_0 its ``base``, on its ``group``: with ``so3`` it is equivariant under SE(3).
        in_node_nf, context_node_nf, backbone: as for :class:`DiTDynamics`.
    """

    def __init__(
        self, architecture: Architecture, in_node_nf: int, context_node_nf: int = 0, backbone: nn.Module | None = None
    ) -> None:
        super().__init__(architecture, in_node_nf, context_node_nf, backbone)
        a = architecture
        self.group = get_group(a.group)
        self.f_theta: LearnedRotation | None = None
        if a.frame == "learned":
            self.f_theta = LearnedRotation(
                N_DIMS + a.noise_dims + a.hidden_size - a.xh_hidden_size,
                a.enc_hidden_size, a.enc_depth, a.enc_num_heads, a.enc_mlp_ratio,
                a.dec_hidden_features, a.mlp_dropout, orthogonalise_rows=a.compat == "release_fix_qr",
                special=self.group.special,
            )  # fmt: skip

    def draw(self, xh: Tensor, node_mask: Tensor) -> dict[str, Tensor]:
        """R0 ~ gamma_0 and, for a learned gamma, eta ~ N_U(0, noise_std^2), from the global generator."""
        batch, length, _ = xh.shape
        a = self.architecture
        if a.base == "pca":
            R0 = pca_frames(xh[..., :N_DIMS], node_mask, self.group)
        else:
            R0 = sample_haar(batch, special=self.group.special, device=xh.device, dtype=xh.dtype)
        draws = {"R0": R0}
        if self.f_theta is not None:
            eta = torch.randn(batch, length, a.noise_dims, device=xh.device, dtype=xh.dtype)
            eta = eta * a.noise_std * node_mask.to(xh.dtype)
            draws["eta"] = eta if a.is_release else remove_mean(eta, node_mask)
        return draws

    def rotation(
        self, x: Tensor, psi: Tensor, t: Tensor, layout: AtomLayout, R0: Tensor | None, eta: Tensor | None
    ) -> Tensor:
        batch = x.shape[0]
        if R0 is None or R0.shape != (batch, N_DIMS, N_DIMS):
            found = None if R0 is None else tuple(R0.shape)
            raise ValueError(f"R0 must be {(batch, N_DIMS, N_DIMS)}, not {found}")
        if self.f_theta is None:
            return R0
        wanted = (*x.shape[:2], self.architecture.noise_dims)
        if eta is None or eta.shape != wanted:
            raise ValueError(f"eta must be {wanted}, not {None if eta is None else tuple(eta.shape)}")
        x_eta = layout.pack(torch.cat([act_inverse(R0, x), eta], dim=-1))  # (T, 3 + m_noise)
        with self.autocast(x):
            f = self.f_theta(torch.cat([x_eta, psi], dim=-1), t, layout)  # (B, 3, 3)
        return compose(R0, f, release=self.architecture.is_release)


def _times(t: Tensor, xh: Tensor) -> Tensor:
    """EDM's times, (B, 1) or one element, as (B,) of xh's dtype; (1,) where all are known to be equal.

    In sampling all molecules share the time, and what depends on it alone is then computed once, not B times. It shows
    in the stride of an expanded element; the values are looked at where no device has to be waited for.
    """
    shared = t.numel() == 1 or t.stride(0) == 0
    if not shared and t.device.type == "cpu" and not torch.is_grad_enabled():
        shared = len(set(t.flatten().tolist())) == 1
    t = t.to(xh.dtype).reshape(-1)
    return t[:1] if shared else t


def build_dynamics(
    name: str, in_node_nf: int, context_node_nf: int = 0, backbone: nn.Module | None = None, **overrides: Any
) -> DiTDynamics:
    """The dynamics of the preset ``name``.

    Args:
        name: one of :data:`~symdiff_plugin.presets.PRESETS`.
        in_node_nf: nf, the number of atom types plus one if charges are modelled (6 for QM9).
        context_node_nf: number of context features of an atom; 0 for an unconditional model.
        backbone: a network of one's own in the DiT's place, see :class:`DiTDynamics`.
        **overrides: fields of :class:`symdiff_plugin.presets.Architecture`.

    Returns:
        :class:`SymDiffDynamics`, or :class:`DiTDynamics` where the preset is a plain DiT.

    Raises:
        ValueError: unknown preset, or a value that makes no sense.
        TypeError: an override that is no field of the architecture.
    """
    architecture = get_architecture(name, **overrides)
    dynamics = DiTDynamics if architecture.frame == "none" else SymDiffDynamics
    return dynamics(architecture, in_node_nf, context_node_nf, backbone)

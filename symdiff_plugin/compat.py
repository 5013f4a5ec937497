"""Released checkpoints of SymDiff: their parameter names, and loading them.

The authors' release departs from the paper in ways that ``build_dynamics(name, nf, compat="release")`` reproduces
(composition, Psi's mean, time scale, noise eta); :func:`load_release` brings in its weights. The names of the release
are on the left, ours on the right; what follows the prefix is the same in both, since the DiT keeps the layout of the
reference implementation.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from symdiff_plugin.dynamics import DiTDynamics
from symdiff_plugin.weights import finite

PREFIX = "dynamics."
# The longest prefix decides.
NAMES = {
    "gaussian_embedder.means.weight": "pair_embedding.means",
    "gaussian_embedder.stds.weight": "pair_embedding.stds",
    "pos_embedder.": "pair_embedding.proj.",
    "xh_embedder.": "xh_embedder.",
    "k.": "dit.",
    "gamma_enc.x_embedder.": "f_theta.x_embedder.",
    "gamma_enc.": "f_theta.dit.",
    "gamma_dec.fc1.": "f_theta.fc1.",
    "gamma_dec.fc2.": "f_theta.fc2.",
}
# f_theta has no final layer (Algorithm 4), though the release's encoder may carry the weights of one.
UNUSED = ("gamma_enc.final_layer.",)
# EDM's own entries of a whole model's state dict: the noise schedule and a device marker.
NOT_DYNAMICS = ("gamma.", "buffer")


def from_release(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict under the parameter names of :class:`SymDiffDynamics`.

    Args:
        state_dict: of the whole model (names with the prefix ``dynamics.``) or of its dynamics alone.

    Raises:
        ValueError: a name that no released model has.
    """
    whole = any(name.startswith(PREFIX) for name in state_dict)
    renamed = {}
    for name, value in state_dict.items():
        if whole and not name.startswith(PREFIX):
            if name.startswith(NOT_DYNAMICS):
                continue
            raise ValueError(f"not a released SymDiff checkpoint: unexpected entry {name!r}")
        short = name.removeprefix(PREFIX)
        if short.startswith(UNUSED):
            continue
        source = max((old for old in NAMES if short.startswith(old)), key=len, default=None)
        if source is None:
            raise ValueError(f"not a released SymDiff checkpoint: unexpected entry {name!r}")
        new = NAMES[source] + short.removeprefix(source)
        renamed[new] = value.reshape(-1) if value.shape[:1] == (1,) and new.startswith("pair_embedding.") else value
    return renamed


def load_release(dynamics: DiTDynamics, state_dict: Mapping[str, Tensor]) -> None:
    """Loads a released checkpoint into ``dynamics``, which changes only if everything fits.

    Args:
        dynamics: of the released model's sizes; ``compat="release"`` reproduces the release's outputs, the default
            puts its weights into the paper's equivariant model, which they were not trained for.
        state_dict: as ``torch.load(path, weights_only=True)`` gives it.

    Raises:
        ValueError: an entry is unknown, missing, of another shape or not finite.
    """
    renamed, own = from_release(state_dict), dynamics.state_dict()
    for name, value in own.items():
        if name not in renamed:
            raise ValueError(f"the checkpoint has no {name}: it is of another model (a smaller or a plain DiT?)")
        if renamed[name].shape != value.shape:
            found, wanted = tuple(renamed[name].shape), tuple(value.shape)
            raise ValueError(f"{name} is {found} in the checkpoint but {wanted} in the model: choose its preset")
    extra = sorted(set(renamed) - set(own))
    if extra:
        raise ValueError(f"the checkpoint has {extra[0]}, which the model lacks: it is of another model")
    dynamics.load_state_dict(finite(renamed, "the checkpoint"))

"""Parameters and sizes of the paper's models, which need no run: the networks are built and counted, not trained."""

from __future__ import annotations

from functools import cache

import torch

from symdiff_plugin.edm import EdmError, import_edm
from symdiff_plugin.presets import EGNN_BASELINES, EGNN_GEOM_BASELINES, PRESETS

# Columns of h: QM9's five atom types and the charge, GEOM-Drugs' sixteen types.
IN_NODE_NF = {"qm9": 6, "geom": 16}
_BASELINES = {"qm9": EGNN_BASELINES, "geom": EGNN_GEOM_BASELINES}


@cache
def counted_sizes(key: str, dataset: str) -> dict[str, float]:
    """What is known of a model without a run, by the names of the report's columns.

    Args:
        key: a preset or an EGNN baseline.
        dataset: ``qm9`` or ``geom``.

    Returns:
        ``parameters`` in millions and the sizes: for the plugin's models ``epsilon_theta`` (parameters in millions),
        ``hidden_size``, ``depth`` and ``num_heads``, for EDM's ``nf`` and ``n_layers``. Empty for anything else;
        without EDM, whose code is what is counted, its models have no ``parameters``.
    """
    sizes: dict[str, float]
    # On the meta device tensors have shapes but no memory, and nothing is drawn.
    if key in PRESETS:
        from symdiff_plugin.model.dynamics import build_dynamics
        from symdiff_plugin.training.run import count_parameters

        with torch.device("meta"):
            numbers = count_parameters(build_dynamics(key, IN_NODE_NF[dataset]))
        a = PRESETS[key].architecture
        sizes = {"hidden_size": a.hidden_size, "depth": a.depth, "num_heads": a.num_heads}
        return {"parameters": numbers["total"] / 1e6, "epsilon_theta": numbers["epsilon_theta"] / 1e6, **sizes}
    if key in _BASELINES[dataset]:
        flags = _BASELINES[dataset][key]
        sizes = {"nf": flags["nf"], "n_layers": flags["n_layers"]}
        try:
            egnn = import_edm("egnn.models").EGNN_dynamics_QM9
        except EdmError:
            return sizes
        with torch.device("meta"):
            network = egnn(  # one column more: the time
                IN_NODE_NF[dataset] + 1, 0, n_dims=3, hidden_nf=flags["nf"], n_layers=flags["n_layers"],
                device="meta", attention=True, tanh=True, inv_sublayers=1, mode=flags["model"],
            )  # fmt: skip
        return {"parameters": sum(p.numel() for p in network.parameters()) / 1e6, **sizes}
    return {}

"""A split of QM9 under the metrics of the samples: the row "Data" of the paper's tables (Table 1).

EDM's bonds are judged by distance, so not even QM9's own molecules are all stable: they are what a perfect model
of the data would score.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from symdiff_plugin.data import DataError, check_datadir, load_split
from symdiff_plugin.data.schema import CHARGES
from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.metrics import judge, summarise
from symdiff_plugin.evaluate.molecules import from_padded
from symdiff_plugin.evaluate.run import EvaluationError
from symdiff_plugin.evaluate.settings import data_hash
from symdiff_plugin.novelty import UPSTREAM_DATADIR, training_smiles

DEFAULT_DATADIR = UPSTREAM_DATADIR
SPLIT_OF = {"test": "test", "val": "valid", "train": "train"}


def evaluate_split(datadir: str | Path, partition: str) -> dict[str, Any]:
    """Judge all molecules of a split, with hydrogens, as samples are judged.

    Args:
        datadir: the folder that holds ``qm9/``.
        partition: ``test``, ``val`` or ``train``.

    Returns:
        What ``metrics.json`` holds: ``kind`` (``data``), ``dataset``, ``partition``, ``n_samples`` (molecules),
        ``data_sha256`` and the metrics of :func:`~symdiff_plugin.evaluate.metrics.summarise`; ``novelty`` is None
        for the training split, against which it is measured.

    Raises:
        EvaluationError: there is no such partition, or the data are missing or corrupt.
        EdmError: EDM is missing or unpatched.
    """
    if partition not in SPLIT_OF:
        raise EvaluationError(f"there is no partition {partition!r}: choose {', '.join(SPLIT_OF)}")
    try:
        check_datadir(datadir)
        arrays = load_split(datadir, SPLIT_OF[partition])
    except DataError as error:
        raise EvaluationError(f"{error} (or name another folder with --datadir)") from error
    info = import_edm("configs.datasets_config").get_dataset_info("qm9", False)
    dataset_info = {**info, "datadir": str(datadir)}
    charges = arrays["charges"]
    decoder = dataset_info["atom_decoder"]
    # Padding, charge 0, comes before the first type; it is masked away.
    types = np.searchsorted([CHARGES[symbol] for symbol in decoder], charges)
    molecules = from_padded(arrays["positions"], types, charges, decoder)
    known = None if partition == "train" else training_smiles(dataset_info)
    return {
        "kind": "data",
        "dataset": "qm9",
        "partition": partition,
        "n_samples": len(molecules),
        "data_sha256": data_hash(datadir),
        **summarise(molecules, judge(molecules, dataset_info), known),
    }

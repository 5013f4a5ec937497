"""QM9 as EDM reads it: ``python -m symdiff_plugin.data.qm9 --datadir DIR`` makes it, these functions read it."""

from symdiff_plugin.data.qm9_slices import make_slice_from_qm9pack, write_slice
from symdiff_plugin.data.schema import SPLITS, DataError, ResourceError
from symdiff_plugin.data.store import check_datadir, load_split

__all__ = [
    "SPLITS",
    "DataError",
    "ResourceError",
    "check_datadir",
    "load_split",
    "make_slice_from_qm9pack",
    "write_slice",
]

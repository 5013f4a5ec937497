"""The header of an ``.npy`` file that is written row by row, its length known at the end."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import DTypeLike


def header(shape: tuple[int, ...], dtype: DTypeLike) -> bytes:
    """The header that ``np.save`` writes; its length does not depend on ``shape[0]``, NumPy leaves room to grow."""
    buffer = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()

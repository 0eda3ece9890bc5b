"""From the numbers as they are stored to the numbers a block holds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...aligners.errors import SutureError
from .arrays import Array

__all__ = ["Codec"]

FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class Codec:
    """How stored numbers become float16, float32 or float64.

    Floats keep their width (big-endian becomes native), bfloat16 and every integer become float32.
    `stored` is the dtype on disk; for bfloat16, which numpy does not know, it is uint16 with `bfloat16=True`.
    """

    stored: np.dtype
    bfloat16: bool = False

    @classmethod
    def of(cls, dtype: np.dtype, where: str) -> "Codec":
        """The codec of a numpy `dtype`; SutureError for complex, bool, object, text and structured dtypes."""
        if dtype.newbyteorder("=") not in FLOATS and dtype.kind not in "iu":
            hint = " Object arrays are pickles and are never loaded." if dtype.hasobject else ""
            raise SutureError(
                f"{where}: expected float16, float32, float64 or integer numbers, got dtype {dtype}.{hint} "
                "Save the vectors again as a real numeric array."
            )
        return cls(dtype)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the blocks."""
        return self.stored.newbyteorder("=") if self.stored.kind == "f" else np.dtype(np.float32)

    @property
    def direct(self) -> bool:
        """Whether stored bytes are block bytes, so that a file can be read straight into the block."""
        return self.dtype == self.stored

    def decode(self, raw: Array, out: Array) -> None:
        """Write the stored numbers `raw` into `out`, both `(m, p)`."""
        if self.bfloat16:
            bits: NDArray[np.uint32] = out.view(np.uint32)
            bits[...] = raw
            bits <<= 16
        else:
            np.copyto(out, raw, casting="unsafe")

"""What a format must do to be written."""

from abc import ABC, abstractmethod
from typing import BinaryIO, ClassVar

import numpy as np

from ..arrays import Array
from ..ids import IdKind

__all__ = ["Sink"]


class Sink(ABC):
    """A format being written onto an empty, seekable file.

    `holds_ids` says whether the format keeps ids; where it does not, `ids` is None in every call. `id_kind` is None
    where there are no ids. RefusedError if the format cannot hold `dtype`.
    """

    holds_ids: ClassVar[bool]

    @abstractmethod
    def __init__(self, file: BinaryIO, dim: int, dtype: np.dtype, id_kind: IdKind | None) -> None: ...

    @abstractmethod
    def write(self, block: Array, ids: Array | None) -> None:
        """Append a C-contiguous block `(m, dim)`."""

    @abstractmethod
    def finish(self, rows: int) -> None:
        """Complete the file, now that the number of rows is known; the file itself stays open."""

    def abandon(self) -> None:  # noqa: B027 most formats hold nothing
        """Let go of what is held, for the file will be removed."""

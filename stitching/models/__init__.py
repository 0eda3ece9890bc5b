"""Models put together: a new encoder, a map, and the decoder that knew the old encoder."""

from ...aligners.head import HeadJudge
from .fold import fold
from .headfile import Head, load_head, save_head
from .relative import RelativeSpace
from .stitch import model_map, stitch, swap_encoder

__all__ = [
    "Head",
    "HeadJudge",
    "RelativeSpace",
    "fold",
    "load_head",
    "model_map",
    "save_head",
    "stitch",
    "swap_encoder",
]

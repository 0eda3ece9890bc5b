"""Serving a gallery between two encoders, in numpy alone: torch is not loaded.

    from suture.stitching.serving import Bridge

    bridge = Bridge.load("upgrade.safetensors", index)  # an array of rows, a faiss index, or a function
    scores, rows = bridge.search(new_query, k=10)

Every object checks width and finiteness of every query; that costs microseconds.
"""

from .bridge import Bridge
from .cascade import Cache, Cascade
from .dual import DualSearch
from .mixed import MixedSearch

__all__ = ["Bridge", "Cache", "Cascade", "DualSearch", "MixedSearch"]

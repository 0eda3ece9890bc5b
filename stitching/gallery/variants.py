"""Smaller rows: cut to their first dims, or stored in fewer bits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .scan import Channel, System, View
from .systems import Systems

__all__ = ["FORMED", "FORMS", "variants"]

FORMED = ("stay", "map", "re-embed")  # the strategies whose rows are made smaller
# What becomes of the gallery's unit rows; queries keep their precision, and are cut where the rows are cut.
FORMS = {
    "half": "the first half of the dims, to unit length again (Matryoshka, Kusupati et al. 2022)",
    "quarter": "the first quarter of the dims, to unit length again",
    "float16": "rounded to float16",
    "int8": "256 steps between the least and the largest value of each dim",
    "binary": "the sign of each dim",
}


def variants(systems: Systems) -> dict[str, System]:
    """``stay``, ``map`` and ``re-embed``, where there are such, on rows of every form: "map int8" and so on."""
    channels = (systems.old, systems.map, systems.new if systems.inputs.full_pool else None)
    out = {}
    for base, channel in zip(FORMED, channels, strict=True):
        if channel is None:
            continue
        sample = systems.sample[channel.view]
        for form in FORMS:
            cut, shape = shaped(form, sample)
            name = f"{base} {form}"
            systems.views[name] = view_of(channel.view, cut, shape)
            queries = normalize(channel.queries[:, :cut], dim=1)
            out[name] = System(name, ((Channel(queries, name), 1.0),), on_new=base == "re-embed")
    return out


def view_of(base: str, cut: int, shape: Callable[[Tensor], Tensor]) -> View:
    """The base's rows, cut, shaped and made unit again."""
    return lambda block: normalize(shape(block[base][:, :cut]), dim=1)


def shaped(form: str, sample: Tensor) -> tuple[int, Callable[[Tensor], Tensor]]:
    """How many dims are kept, and what becomes of them; ranges are those of the ``sample`` ``(s, d)``."""
    dim = sample.shape[1]
    if form in ("half", "quarter"):
        return max(1, dim // (2 if form == "half" else 4)), lambda rows: rows
    if form == "float16":
        return dim, lambda rows: rows.half().float()
    if form == "binary":
        return dim, lambda rows: torch.where(rows >= 0, 1.0, -1.0)
    low, high = sample.amin(0), sample.amax(0)
    step = ((high - low) / 255).clamp(min=1e-12)
    return dim, lambda rows: ((rows - low) / step).round_().clamp_(0, 255) * step + low

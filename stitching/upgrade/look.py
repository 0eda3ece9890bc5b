"""What a gallery is, read through once in constant memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..apply import BLOCK
from ..dumps.badrows import REASONS
from ..stores import Store
from .plan import FRAGMENT_ROWS
from .rows import bad_rows

__all__ = ["look"]

UNIT = 2e-3


def look(store: Store, advance: Callable[[int], None] = lambda rows: None) -> dict[str, Any]:
    """Facts, norms and bad rows of a gallery, as plain JSON."""
    facts = store.facts()
    bad = dict.fromkeys(REASONS, 0)
    low, high, total, good_rows, stamps = np.inf, 0.0, 0.0, 0, set[str | None]()
    for fragment in store.fragments(FRAGMENT_ROWS):
        for batch in store.read(fragment, BLOCK):
            found = bad_rows(batch)
            good = np.ones(len(batch), bool)
            for reason, at in found.items():
                bad[reason] += len(at)
                good[at] = False
            norms = torch.linalg.vector_norm(torch.from_numpy(batch.vectors[good]).double(), dim=1)
            if len(norms):
                low, high = min(low, float(norms.min())), max(high, float(norms.max()))
                total, good_rows = total + float(norms.sum()), good_rows + len(norms)
            stamps.update(batch.stamps or ())
            advance(len(batch))
    known = sorted(stamp for stamp in stamps if stamp)
    return {
        "kind": "gallery",
        "name": store.name,
        **{key: value for key, value in vars(facts).items() if key != "payload"},
        "payload": list(facts.payload),
        "stamps": known,
        "unit": bool(good_rows) and abs(low - 1) < UNIT and abs(high - 1) < UNIT,
        "norms": {"min": low, "mean": total / good_rows, "max": high} if good_rows else None,
        "bad_rows": bad,
        "live": store.live,
    }

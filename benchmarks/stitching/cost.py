"""What a folded head costs: as much as a bare one."""

from __future__ import annotations

import copy
import random
import statistics
from time import perf_counter

import torch
from torch import nn

from suture.aligners import Affine
from suture.stitching.models import fold, stitch

import results

P, Q, CLASSES, ROUNDS = 768, 768, 45, 300


@torch.inference_mode()
def latency() -> str:
    """A section: bare head, folded head, and map and head, in turns."""
    torch.manual_seed(0)
    mapping = Affine(torch.randn(P, Q, dtype=torch.float64) / P**0.5, torch.randn(Q, dtype=torch.float64))
    head = nn.Linear(Q, CLASSES)
    folded = fold(mapping, head)
    stitched = stitch(nn.Identity(), mapping, copy.deepcopy(head))  # a head run twice a round is warmer
    probe = torch.randn(2000, P)
    error = float((folded(probe) - head(mapping(probe.double()).float())).abs().max())
    rows = []
    for batch in (1, 64, 1024):
        x = torch.randn(batch, P)
        times: dict[str, list[float]] = {"bare head": [], "folded head": [], "map and head": []}
        turns = list(zip(times, (head, folded, stitched), strict=True))
        for _ in range(ROUNDS):
            random.shuffle(turns)  # what comes after the large product finds its numbers gone from the cache
            for name, module in turns:
                started = perf_counter()
                module(x)
                times[name].append(perf_counter() - started)
        base = statistics.median(times["bare head"])
        ratios = [statistics.median(values) / base for values in times.values()]
        rows.append([str(batch), f"{base * 1e6:.0f} us", *(f"{r:.2f}" for r in ratios[1:])])
    numbers = [sum(p.numel() for p in m.parameters()) for m in (head, folded)]
    return "\n\n".join(
        (
            "## The cost of a folded head",
            f"Linear head of {Q} dims and {CLASSES} classes behind an affine map of {P} dims; medians of {ROUNDS} "
            f"rounds in turns, as ratios to the bare head. Parameters: bare {numbers[0]}, folded {numbers[1]}. Largest "
            f"difference of outputs on 2,000 rows: {error:.1e}.",
            results.markdown(("batch", "bare head", "folded head", "map and head"), rows),
        )
    )

"""Adam on row-wise losses, stopped early: the one loop that every trained method goes through."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Progress", "train"]

Progress = Callable[[int, int], None]
CHECK_EVERY = 10  # steps between two looks at the held-out rows


def train(
    parameters: Sequence[Tensor],
    loss: Callable[[Tensor], Tensor],
    held_out: Callable[[], Tensor],
    rows: int,
    *,
    steps: int,
    batch: int,
    rate: float,
    patience: int,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Minimise ``loss(row numbers)`` in place, and leave ``parameters`` as they were best for ``held_out()``.

    Adam (Kingma & Ba 2015) with a rate that falls to 0 along half a cosine. The start is the first thing judged, so the
    result is never worse than it on the held-out rows. Ends after ``patience`` looks, ten steps apart, without a new
    best. Returns what happened, for the provenance.
    """
    for parameter in parameters:
        parameter.requires_grad_()
    optimiser = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.99))
    batches = _batches(rows, min(batch, rows), seed)
    start = best = math.inf
    best_step = step = 0
    kept: list[Tensor] = []
    while True:
        if step % CHECK_EVERY == 0 or step == steps:
            with torch.no_grad():
                now = float(held_out())
            start = now if step == 0 else start
            if now < best:
                best, best_step, kept = now, step, [p.detach().clone() for p in parameters]
            if progress is not None:
                progress(step, steps)
        if step == steps or step - best_step >= patience * CHECK_EVERY or not math.isfinite(start):
            break
        for group in optimiser.param_groups:
            group["lr"] = rate * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        optimiser.zero_grad()
        loss(next(batches)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        step += 1
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.requires_grad_(False).copy_(value)
    return {
        "steps": step,
        "best_step": best_step,
        "stopped": "early" if step < steps else "at the last step",
        "objective": {"start": start, "best": best},
    }


def _batches(rows: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Row numbers, each row once in every round of shuffling, without an end."""
    generator = torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < batch:
            waiting = torch.cat([waiting, torch.randperm(rows, generator=generator)])
        yield waiting[:batch]
        waiting = waiting[batch:]

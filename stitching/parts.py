"""Dumps taken apart and maps put together: what `suture split`, `contrast`, `units`, `truncate` and `recombine` do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..aligners.alignment import Alignment, Space
from ..aligners.errors import RefusedError
from ..aligners.maps import Affine
from ..aligners.moments import Moments
from ..aligners.moments_builder import MomentsBuilder
from ..aligners.recognise import require_side
from ..aligners.survey import Survey
from ..aligners.units.clusters import cluster_units, sharedness
from ..aligners.units.matching import correlations, matched_units
from ..aligners.units.split import SharedPrivate, Split, contrast, shared_share, split
from .dumps import Dump, Pairing
from .rows import screened
from .stream import PairedDumps

__all__ = ["affine_maps", "contrasted", "paired_rows", "shared_rows", "split_spaces", "units_of"]

MOST = 20_000  # rows in memory


def split_spaces(
    survey: Survey, rank: int | None, *, eps: float = 0.01, draws: int = 100, seed: int = 0
) -> tuple[dict[str, Alignment], dict[str, Any]]:
    """Alignments "shared" (of both sides), "source" and "target" (the private part of one), and what is known of them.

    The rank by permutation where none is given. Private parts have one side, called source: its rows go in.
    """
    found = SharedPrivate(eps=eps, draws=draws, seed=seed)
    rank = found.rank(survey) if rank is None else rank
    sides = split(survey.moments, rank, eps=eps)
    spaces = {"source": survey.source, "target": survey.target}
    scatter = {"source": survey.moments.block("xx"), "target": survey.moments.block("yy")}
    facts = {
        "rank": rank,
        "variance": {n: shared_share(scatter[n], part.shared) for n, part in zip(spaces, sides, strict=True)},
    }
    made = {"method": "split", "rows": int(survey.moments.n), **facts}
    both = {name: part.shared for name, part in zip(spaces, sides, strict=True)}
    out = {"shared": Alignment(both, {}, spaces, {**made, "part": "shared"})}
    out |= {n: alone(part.private, spaces[n], {**made, "part": n}) for n, part in zip(spaces, sides, strict=True)}
    return out, facts


def alone(mapping: Affine, space: Space | None, facts: Mapping[str, Any]) -> Alignment:
    """One space by itself, as an alignment of one side."""
    return Alignment({"source": mapping}, {}, {} if space is None else {"source": space}, facts).to(torch.float32)


def contrasted(
    target: Dump, background: Dump, rank: int, *, alpha: float = 1.0
) -> tuple[dict[str, Alignment], dict[str, Any]]:
    """Alignments "salient" and "common" of one space, and the share of variance of both dumps in the salient part."""
    if target.dim != background.dim:
        raise RefusedError(
            f"contrast: expected two sets of rows of one space, got {target.dim} dims in {target.name} and "
            f"{background.dim} in {background.name}."
        )
    moments = {"target": moments_of(target), "background": moments_of(background)}
    found = contrast(moments["target"], moments["background"], rank, alpha=alpha)
    shares = {name: salient_share(m, found) for name, m in moments.items()}
    made = {"method": "contrast", "alpha": alpha, "rank": rank, "rows": int(moments["target"].n), "variance": shares}
    parts = {"salient": found.shared, "common": found.private}
    return {name: alone(m, None, {**made, "part": name}) for name, m in parts.items()}, {"variance": shares}


def moments_of(dump: Dump) -> Moments:
    """Of the rows of one dump, bad ones refused."""
    builder = MomentsBuilder(("xx",))
    for block in screened(dump):
        builder.add(block, block)
    return builder.moments()


def salient_share(moments: Moments, parts: Split) -> float:
    """Share of the variance of rows along the salient directions."""
    scatter, weight = moments.block("xx"), parts.shared.weight
    return float((weight.T @ scatter @ weight).trace() / scatter.trace())


def units_of(pairing: Pairing, clusters: int | None, *, seed: int = 0) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """A record for each unit of both spaces: its best partner, its one-to-one partner, its cluster; and the summary."""
    builder = MomentsBuilder(("xx", "xy", "yy"))
    for x, y, _, weights in PairedDumps(pairing).blocks():
        builder.add(x, y, weights)
    moments = builder.moments()
    c = correlations(moments)
    pairs = torch.stack(matched_units(c, "bipartite"), 1).tolist()
    partner = {"source": dict(pairs), "target": {j: i for i, j in pairs}}
    group = None if clusters is None else cluster_units(moments, clusters, seed=seed)
    records = []
    for side, table in (("source", c), ("target", c.T)):
        best = table.abs().argmax(1)
        labels: Tensor | None = None if group is None else getattr(group, side)
        for unit in range(len(table)):
            matched = partner[side].get(unit)
            records.append(
                {
                    "space": side,
                    "unit": unit,
                    "best": int(best[unit]),
                    "correlation": round(float(table[unit, best[unit]]), 6),
                    "matched": matched,
                    "matched_correlation": None if matched is None else round(float(table[unit, matched]), 6),
                    "cluster": None if labels is None or labels[unit] < 0 else int(labels[unit]),
                }
            )
    return records, sharedness(moments)


def shared_rows(alignment: Alignment, side: str, dump: Dump) -> Tensor:
    """At most 20,000 rows ``(n, D)`` of ``dump``, evenly spaced, where the map of ``side`` puts them."""
    step = -(-dump.rows // MOST)
    kept, start = [], 0
    for block in screened(dump):
        if not start:
            require_side(alignment, side, block, dump.name)
        kept.append(alignment.map_of(side)(block[(-start) % step :: step].clone()))
        start += len(block)
    return torch.cat(kept)


def paired_rows(
    pairing: Pairing, alignments: Mapping[str, Alignment], advance: Callable[[int], None] = lambda rows: None
) -> tuple[Tensor, Tensor]:
    """Pairs that fit in memory, between the spaces of all ``alignments``.

    Raises `RefusedError` on rows of other spaces, and on more than 20,000: so many deserve a fit of their own.
    """
    if pairing.rows > MOST:
        raise RefusedError(f"recombine: expected at most {MOST} pairs, got {pairing.rows}; with so many, `suture fit`.")
    blocks = [(b.x.clone(), b.y.clone()) for b in PairedDumps(pairing, advance).blocks()]
    found = torch.cat([x for x, _ in blocks]), torch.cat([y for _, y in blocks])
    for name, alignment in alignments.items():
        for side, rows, dump in zip(("source", "target"), found, (pairing.source, pairing.target), strict=True):
            require_side(alignment, side, rows, f"{dump.name} for {name}")
    return found


def affine_maps(alignments: Mapping[str, Alignment]) -> dict[str, Affine]:
    """The translation of each. Raises `RefusedError` where one is not affine."""
    found = {name: alignment.translate() for name, alignment in alignments.items()}
    for name, mapping in found.items():
        if not isinstance(mapping, Affine):
            raise RefusedError(f"{name}: expected an affine map to recombine, got one of kind {mapping.kind}.")
    return {name: mapping for name, mapping in found.items() if isinstance(mapping, Affine)}

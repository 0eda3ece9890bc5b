"""The file that hands an estimate to the upgrade: a map file as any other, with the estimate in its provenance.

``translate("source", "target")`` maps gallery rows, ``translate("target", "source")`` bridges queries, and where the
strategy needs it ``translate("target", "expanded")`` puts new rows into the expanded form. Attached are queries and
their right answers, which `verify` asks of the new gallery. `docs/format.md` lists what stands under ``upgrade`` in the
provenance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...aligners.alignment import Alignment, Space
from ...aligners.errors import RefusedError, SutureError
from ...aligners.file import load, save_alignment
from .estimate import Estimate
from .probe import Probe

__all__ = ["VERSION", "Upgrade", "load_upgrade", "save_upgrade", "upgraded"]

VERSION = 1
KEPT = (
    *(
        "verdict",
        "strategy",
        "conclusion",
        "metric",
        "level",
        "evidence",
        "scope",
        "queries",
        "gallery_rows",
        "pool_rows",
    ),
    *("gates", "recall_by", "backfill_by", "query_hash", "seed", "notes", "thresholds"),
)
SHOWN = ("name", "metrics", "difference", "quantities", "cost", "reason")


@dataclass(frozen=True)
class Upgrade:
    """``alignment`` and what the estimate found: ``facts`` as they stand in the file."""

    alignment: Alignment
    facts: Mapping[str, Any]

    @property
    def strategy(self) -> str | None:
        """The row of the table that the verdict names, None where it is undecided between all."""
        return self.facts["strategy"]

    def row(self, strategy: str) -> Mapping[str, Any]:
        """That strategy's metrics, intervals and cost. Raises `SutureError` where there is no such row."""
        for row in self.facts["strategies"]:
            if row["name"] == strategy:
                return row
        raise SutureError(f"there is no strategy '{strategy}' in this estimate.")


def upgraded(estimate: Estimate, *, canaries: bool = True) -> Alignment:
    """The alignment of an estimate with all that the upgrade must know; without ``canaries`` no row and no query."""
    result, systems = estimate.result, estimate.systems
    mixing = {
        name: {"a": value["a"], "how": value["how"], "coefficients": list(systems.coefficients(name, value["a"]))}
        for name, value in result["mixing"].items()
    }
    facts = {
        "version": VERSION,
        **{key: result[key] for key in KEPT},
        "mixing": mixing,
        "tuned": estimate.measured.tuned is not None,
        "strategies": [{key: row[key] for key in SHOWN} for row in result["strategies"]],
    }
    alignment = estimate.maps.alignment
    if result["verdict"] in ("expanded", "backfill"):
        form = estimate.maps.expanded
        alignment = replace(
            alignment,
            maps={**alignment.maps, "expanded": form.pinv()},
            back={**alignment.back, "expanded": form},
        )
    probe, tuned = Probe.of(estimate) if canaries else None, estimate.measured.tuned
    attached = {} if probe is None else probe.tensors()
    if tuned is not None:
        attached["tuned"] = tuned.weight
    alignment = replace(alignment, attached=attached)
    if not canaries:
        bare = {name: Space(s.dim, s.unit, s.fingerprint, s.mean) for name, s in alignment.spaces.items()}
        alignment = replace(alignment, spaces=bare)
    return alignment.with_provenance(upgrade={**facts, "probe": None if probe is None else probe.facts()})


def save_upgrade(estimate: Estimate, path: str | Path, *, canaries: bool = True, overwrite: bool = False) -> None:
    """Write the upgrade file.

    Raises `RefusedError` where the pairs look unrelated, and if it exists and ``overwrite`` is not set.
    """
    if estimate.result["map"]["audit"]["verdict"] == "unrelated":
        raise RefusedError(
            f"{path} was not written: the pairs look unrelated, so its map would be one of chance. Pair the rows anew."
        )
    save_alignment(upgraded(estimate, canaries=canaries), path, overwrite=overwrite)


def load_upgrade(path: str | Path) -> Upgrade:
    """Read it back. Raises `SutureError` on a map file without an estimate, or of a newer version."""
    alignment = load(path)
    facts = alignment.provenance.get("upgrade")
    if not isinstance(facts, dict):
        raise SutureError(f"{path}: expected a file by `suture gallery estimate --save`, this map has no estimate.")
    if facts.get("version", 0) > VERSION:
        raise SutureError(f"{path}: its estimate has version {facts['version']}, known are those up to {VERSION}.")
    return Upgrade(alignment, facts)

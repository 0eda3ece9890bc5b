"""What a verdict is made of and how it is worded, on tables written by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gallery_worlds import World

from suture.stitching.gallery.choice import close
from suture.stitching.gallery.measure import BASES
from suture.stitching.gallery.verdict import ORDER, Verdict, verdict

Suture = Callable[..., Any]


def row(name: str, value: float, doubt: float | None, recalled: int | None = None, metric: str = "m") -> dict[str, Any]:
    gap = {"estimate": value - 0.5, "low": value - 0.55, "high": value - 0.45}
    metrics = {metric: {"estimate": value}}
    cost = {"distinct_rows_recalled": recalled}
    return {"name": name, "metrics": metrics, "difference": {metric: gap}, "doubt": doubt, "cost": cost}


def judged(rows: list[dict[str, Any]], metric: str = "m", **given: Any) -> Verdict:
    known = {"queries": 700, "answered": 100, "gallery_rows": 15_000, "base": "dual", "pairing": "clean"}
    return verdict(rows, metric, **{**known, "scope": "gallery", **given})


def test_holm_is_stricter_than_one_test() -> None:
    rows = [row("stay", 0.5, None), row("map", 0.52, 0.03), row("bridge", 0.51, 0.4)]
    assert judged(rows).name == "undecided"
    assert judged(rows[:2]).name == "map"
    found = judged(rows)
    assert found.more_queries is not None
    assert found.more_queries > 0


def test_a_cascade_says_what_recalls_and_how_many_rows() -> None:
    found = judged([row("stay", 0.5, None), row("cascade@50", 0.7, 0.0, 9_000), row("re-embed", 0.72, 0.0)])
    assert found.strategy == "cascade@50"
    assert "recall 50 rows by dual" in found.sentence
    assert "These 700 queries recalled 9,000 of 15,000 rows." in found.sentence


def test_a_cascade_that_recalls_nearly_all_is_not_preferred_to_re_embedding() -> None:
    rows = [row("stay", 0.5, None), row("cascade@50", 0.7, 0.0, 14_810), row("re-embed", 0.72, 0.0)]
    found = judged(rows)
    assert found.strategy == "re-embed"
    assert "cascade@50 was passed over, it costs what re-embedding everything costs" in found.sentence
    assert "these 700 queries recalled 14,810 of 15,000 rows." in found.sentence
    assert judged(rows[:2]).strategy == "cascade@50"  # re-embedding was not measured
    assert "14,810 of 15,000 rows, which costs what re-embedding everything costs." in judged(rows[:2]).sentence
    unsure = [rows[0], row("dual", 0.52, 0.0), rows[1], row("re-embed", 0.6, 0.4)]
    assert judged(unsure).strategy == "dual"
    assert "cascade@50 was passed over" in judged(unsure).sentence
    gone = [{**each, "difference": None, "doubt": None} for each in rows[1:]]
    assert judged(gone).strategy == "re-embed"


def test_what_looks_better_still_is_named() -> None:
    rows = [row("stay", 0.5, None), row("dual", 0.52, 0.001), row("re-embed", 0.6, 0.3), row("cascade@50", 0.6, 0.3, 9)]
    found = judged(rows)
    assert found.strategy == "dual"
    assert "cascade@50 and re-embed look better still, cascade@50 with 0.600" in found.sentence
    assert f"about {found.more_queries} more queries would tell" in found.sentence


def test_overlap_presupposes_the_decision_to_move() -> None:
    rows = [
        row(name, value, doubt, metric="overlap@10") for name, value, doubt in (("stay", 0.5, None), ("map", 0.6, 0.0))
    ]
    assert judged(rows, "overlap@10").sentence.startswith("If you have decided to move, map the gallery")


def test_staying_says_what_was_not_measured() -> None:
    found = judged([row("stay", 0.5, None), row("map", 0.4, 1.0)])
    assert found.name == "stay"
    assert "nothing that was measured beats" in found.sentence
    assert "Re-embedding and cascades were not measured: no full --pool." in found.sentence


@pytest.mark.parametrize("pooled", [True, False])
def test_queries_that_find_nothing_cannot_tell(tmp_path: Path, suture: Suture, pooled: bool) -> None:
    world = World(tmp_path, queries=28)
    far = -world.old["queries"] @ world.old["gallery"].T
    world.right = far.argmax(1)  # the row that is least like the query
    world.write()
    found = suture(*world.words(pool=pooled), "--json")
    assert found["verdict"] == "undecided"
    assert "cannot tell" in found["conclusion"]
    gone = suture(*world.words(pool=pooled, old=False), "--json")
    assert gone["verdict"] == "undecided"


def test_a_tie_of_nothing_is_neither_worse_nor_the_same() -> None:
    zero = {"estimate": 0.0, "low": 0.0, "high": 0.0}
    none = {"metrics": {"m": zero}, "difference": {"m": zero}, "doubt": 1.0, "cost": None}
    rows = [{**none, "name": name} for name in ("stay", "map", "re-embed")]
    assert judged(rows).name == "undecided"


def test_a_vector_trained_on_labels_is_no_reason_to_move_to_the_same_model() -> None:
    zero = {"estimate": 0.0, "low": 0.0, "high": 0.0}
    same = [{**row(name, 0.5, 1.0), "difference": {"m": zero}} for name in ("map", "re-embed")]
    found = judged([row("stay", 0.5, None), row("dual-tuned", 0.6, 0.0), *same])
    assert (found.name, found.strategy) == ("stay", "stay")
    assert "the new model finds the same as the old one" in found.sentence


def test_the_cheapest_within_one_standard_error_recalls() -> None:
    assert list(BASES) == [name for name in ORDER if name in BASES]
    rng = np.random.default_rng(0)
    best = torch.from_numpy(rng.random(400))
    tie = best + torch.from_numpy(0.05 * rng.normal(size=400))
    tie -= (tie - best).mean() + 0.0001
    assert int(close(torch.stack([best - 0.1, tie, best]))[0]) == 1
    assert int(close(torch.stack([best - 0.1, best - 0.01, best]))[0]) == 2  # each query a little worse: no chance
    assert int(close(torch.stack([best, best]))[0]) == 0


def test_no_map_of_unrelated_pairs_is_written(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    world.new["pairs"] = world.new["pairs"][np.random.default_rng(0).permutation(world.pairs)]
    world.write()
    path = tmp_path / "upgrade.safetensors"
    found = suture(*world.words(), "--save", path, "--json", code=3)
    assert (found["verdict"], found["saved"]) == ("stay", None)
    assert "was not written: the pairs look unrelated" in found["refused"]
    said = suture(*world.words(), "--save", path, code=3)
    assert "refused: " in said
    assert "re-embed" in said  # the table is shown
    assert not path.exists()


def test_the_terminal_counts_answers_and_groups_and_names_what_serves(tmp_path: Path, suture: Suture) -> None:
    world = World(tmp_path)
    world.right[:40] = -1
    world.write()
    (tmp_path / "groups.txt").write_text("\n".join(str(i // 2) for i in range(120)))
    said = suture(*world.words(), "--groups", tmp_path / "groups.txt")
    assert "120 queries (80 with right answers) on 600" in said
    assert "intervals over groups of queries (40)" in said
    assert "minus stay" in said
    assert "less stay" not in said
    assert "update gain" in said
    assert "Cascades recall by " in said
    assert "Backfill goes in the order " in said


def test_held_out_pairs_cost_nothing_and_prove_nothing(tmp_path: Path, suture: Suture) -> None:
    path = tmp_path / "out.html"
    found = suture(*World(tmp_path).words(labels=False, pool=False), "--report", path, "--json")
    assert all(s["cost"] is None for s in found["strategies"])
    assert found["compatible"] == {"bridge": None, "map": None}
    reasons = {s["name"]: s["reason"] for s in found["strategies"]}
    assert "at least 200 rows" in reasons["cascade@200"]
    assert "could not be measured" not in "".join(filter(None, reasons.values()))
    page = path.read_text(encoding="utf-8")
    assert "Compatible (" not in page
    assert "The numbers hold" not in page


def test_the_page_shows_costs_reasons_and_what_serves(tmp_path: Path, suture: Suture) -> None:
    path = tmp_path / "out.html"
    words = [*World(tmp_path).words(labels=False), "--report", path, "--json"]
    found = suture(*words, "--gate", "ndcg@10>.1", code=5)
    page = path.read_text(encoding="utf-8")
    assert "<th>cost</th>" in page
    assert "embed 600, write 600" in page
    assert "Cascades recall by " in page
    assert "minus stay</th>" in page
    assert "if you move" in page
    assert "cannot tell whether the new model is better" in page
    assert found["gates"][0]["reason"] in page
    assert "cannot tell whether the new model is better" in found["notes"][-1]

"""`suture demo`: the whole story on packaged real data."""

from __future__ import annotations

import json as json_lines
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import Json

if TYPE_CHECKING:
    from torch import Tensor

    from ...aligners import Alignment

__all__ = ["demo"]

HERE = Path(__file__).parent
OLD, NEW = "minilm-l6", "mpnet-base"


def demo(
    save: Annotated[
        Path | None, typer.Option(help="Only copy the demo's dumps into this folder, to play with.")
    ] = None,
    json: Json = False,
) -> None:
    """Upgrade a small gallery of dictionary glosses from MiniLM to MPNet: fit, compare, map, judge, conclude."""
    if save is not None:
        copy_dumps(save, json=json)
        return
    import numpy as np

    from ...aligners import Survey, load, save_alignment
    from ...aligners.audit import audit
    from ...aligners.fit import fit
    from ...stitching.apply import apply
    from ...stitching.dumps import BadRows, open_dump, pair
    from ...stitching.evaluate import evaluate
    from ...stitching.stream import PairedDumps
    from .. import evaluate as evaluate_command
    from .. import fit as fit_command
    from ..output import print_json, say, track

    def dump(part: str, encoder: str) -> Any:
        return open_dump(HERE / f"{part}.{encoder}.npy", ids=HERE / f"{part}.ids.npy")

    with TemporaryDirectory(prefix="suture-demo-") as folder:
        path = Path(folder) / "map.safetensors"
        pairing = pair(dump("fit", OLD), dump("fit", NEW))
        survey = Survey.of(PairedDumps(pairing))
        fitted = fit(survey, track=track).with_provenance(audit=audit(survey).as_json())
        save_alignment(fitted, path)
        alignment = load(path)
        mapped = apply(alignment, dump("gallery", OLD), Path(folder) / "mapped.npy", bad_rows=BadRows())
        facts = dict(fitted.provenance)
        fitted_facts = {
            **{k: facts[k] for k in ("method", "params", "rows", "held_out", "candidates", "judged_by", "audit")},
            "edge": facts["edge"],
            "learning_curve": facts["learning_curve"],
            "pairing": pairing.report,
            "source_dim": 384,
            "target_dim": 768,
        }
        right = np.load(HERE / "query_target.npy")
        judged = evaluate(
            alignment,
            dump("query", NEW),
            dump("gallery", OLD),
            source_queries=dump("query", OLD),
            target_gallery=dump("gallery", NEW),
            relevant=[[row] for row in right.tolist()],
            track=track,
        )
        examples = retrieved(alignment, right.tolist())
    if json:
        print_json({**judged, "fit": fitted_facts, "mapped_rows": mapped.rows, "examples": examples})
        return
    say("1. Fit a map from MiniLM (384 dims) to MPNet (768 dims) on 1,200 glosses that both encoders embedded", "bold")
    fit_command.show({**fitted_facts, "path": "map.safetensors", "seconds": None})
    say(f"2. Map the old gallery: {mapped.rows} glosses that no new vector exists of, {mapped.dim} dims now", "bold")
    say("3. Search it with new queries, beside doing nothing and re-embedding everything", "bold")
    evaluate_command.show(judged)
    say("4. Three queries, and the best gloss for each, before and after", "bold")
    for example in examples:
        say(f"  {example['query']}")
        for name in ("right", "stay", "map"):
            mark = "" if name == "right" else (" (right)" if example[name] == example["right"] else "")
            say(f"    {name:>5}: {example[name]}{mark}")
    say(judged["conclusion"], "bold")


def copy_dumps(folder: Path, *, json: bool) -> None:
    """Copy the packaged dumps into ``folder``."""
    from shutil import copyfile

    from ..output import print_json, say

    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(p.name for p in HERE.iterdir() if p.suffix in (".npy", ".jsonl"))
    for name in names:
        copyfile(HERE / name, folder / name)
    if json:
        print_json({"folder": str(folder), "files": names})
    else:
        say(f"{len(names)} files -> {folder}")


def texts(part: str) -> list[str]:
    """The texts of a packaged part, in order."""
    lines = (HERE / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json_lines.loads(line)["text"] for line in lines]


def retrieved(alignment: Alignment, right: list[int]) -> list[dict[str, str]]:
    """Three queries with their best gloss on the old gallery and on the mapped one: both right, won, and lost."""
    import numpy as np
    import torch

    from ...aligners.measures.retrieval import search
    from ...stitching.apply import serving_map

    def rows(part: str, encoder: str) -> Tensor:
        return torch.from_numpy(np.load(HERE / f"{part}.{encoder}.npy")).float()

    mapping, _ = serving_map(alignment)
    gallery = rows("gallery", OLD)
    before = search(rows("query", OLD), gallery, k=1).top[:, 0].tolist()
    after = search(rows("query", NEW), mapping(gallery), k=1).top[:, 0].tolist()
    queries, glosses = texts("query"), texts("gallery")
    kinds: dict[tuple[bool, bool], int] = {}
    for i, answer in enumerate(right):
        kinds.setdefault((before[i] == answer, after[i] == answer), i)
    wanted = [kinds[key] for key in ((True, True), (False, True), (True, False), (False, False)) if key in kinds][:3]
    return [
        {
            "query": queries[i],
            "right": glosses[right[i]],
            "stay": glosses[before[i]],
            "map": glosses[after[i]],
        }
        for i in wanted
    ]

"""Writes docs/methods.md from the registry: `python benchmarks/methods_doc.py [--data DIR]`.

With the dumps (see benchmarks/quality.py and emoji.py) the held-out results are measured again and kept in
`results/methods.json`; without them they are read from there.
"""

import argparse
import json
from dataclasses import fields
from pathlib import Path

import torch

from suture.aligners import ALIGNERS, Aligner, Alignment, Pairs, RefusedError, Survey, SutureError
from suture.stitching.models import Head

import results
from emoji import judged
from quality import ndcg, right_rows, rows

HEAD = """# Methods

Made from the registry by `python benchmarks/methods_doc.py`; the docstring of each class has its equation and its
source. n rows, d dims of either side, m spaces. An affine method folds into a linear layer and composes with other
affine maps; the others are put into a model whole (`module()`), and their other direction is fitted, not inverted.
"Invertible" says what was found on 400 planted pairs between equal dims: the exact inverse, or a way back by least
squares.

Held out: `wordnet` is nDCG@10 of 2,500 new queries on 15,000 mapped glosses, minilm-l6 -> mpnet-base, 2,000 pairs (a
full re-embedding has .295, staying with the old model .229); `emoji` the share of 645 images that have their name among
the five nearest, efficientnet-lite0 -> minilm-l6, 966 pairs. Both by cosine, each space centred for emoji. Methods for
rows without pairs are measured in [seeds](../benchmarks/results/seeds.md), more on emoji in
[emoji](../benchmarks/results/emoji.md), distillation in [distillation](../benchmarks/results/distillation.md)."""

COST = {
    "affine": "n d^2 + d^3",
    "mean-shift": "n d",
    "distill": "n d^2 + steps batch d (d + batch)",
    "distill-mlp": "as distill",
    "head-distill": "n d^2 + steps n d c, c classes",
    "mlp": "n d^2 + steps batch d hidden",
    "landmark": "n k^2 + n d k, k landmarks",
    "local": "n d^2 + k d^3, k cells",
    "relative": "n d k, k anchors; geodesic n^2 log n",
    "relative-product": "as relative, for each similarity",
    "sparse-units": "n d^2 + steps d^3",
    "shared-private": "n d^2 + draws n d^2",
    "seeded": "rounds batch n d",
    "anchor-bootstrap": "rounds pool^2 k + rounds batch n d",
    "mini-vec2vec": "rounds batch n d, and k-means",
    "vecmap": "n^2 d + rounds n^2 d, n at most 4,000",
    "gromov-wasserstein": "rounds n^3, n at most 1,000 nodes",
    "wasserstein-procrustes": "rounds n^2 d + n^3",
    "graph-matching": "restarts n^3, n nodes",
    "assignment": "n d^2 + rounds n K, K prototypes",
    "gpa": "n (m d)^2 + rounds m d^3",
    "gcca": "n (m d)^2 + (m d)^3",
    "srm": "n (m d)^2 + rounds m d^3",
    "bind": "n (m d)^2 + m d^3",
}


def gives(kind: type[Aligner]) -> str:
    """What comes out."""
    if kind.needs == "many spaces":
        return "affine map for each space"
    return "affine map" if kind.affine else "map that bends"


def way_back(kind: type[Aligner]) -> str:
    """Whether a fit on planted pairs can be undone."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 16, generator=g)
    y = x @ torch.linalg.qr(torch.randn(16, 16, generator=g))[0] + 0.1 * torch.randn(400, 16, generator=g)
    if kind.needs == "many spaces":
        return "yes, to every space"
    if kind.needs not in ("pairs", "a head"):
        return "yes"  # a rotation
    given = (Head(torch.randn(5, 16, generator=g), torch.zeros(5)),) if kind.needs == "a head" else ()
    try:
        found = kind(*given).fit(x, y)
    except SutureError as error:
        return f"not tried ({error})"
    try:
        found.inverse()
    except RefusedError:
        return "least squares" if kind.affine else "no"
    return "yes"


def centred_scores(alignment: Alignment, x: torch.Tensor, y: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Cosines of mapped ``x`` and ``y`` about the mean of the target."""
    mapped, there = alignment.translate()(x) - mean, y - mean
    return torch.nn.functional.normalize(mapped, dim=1) @ torch.nn.functional.normalize(there, dim=1).T


def measure(data: Path) -> dict[str, dict[str, float | str]]:
    """Held-out results of every method for pairs, on both sets."""
    words, old, new = data / "wordnet", "minilm-l6", "mpnet-base"
    right, queries, gallery = right_rows(words), rows(words / new, "query"), rows(words / old, "gallery")
    glosses = Survey.of(Pairs.of(rows(words / old, "fit")[:2000], rows(words / new, "fit")[:2000]))
    sides = [data / "emoji" / name for name in ("efficientnet-lite0", "minilm-l6")]
    (x, y), (a, b) = ([rows(side, part) for side in sides] for part in ("fit", "test"))
    images = Survey.of(Pairs.of(x, y))
    found: dict[str, dict[str, float | str]] = {}
    for name, kind in ALIGNERS.items():
        if kind.needs != "pairs":
            continue
        found[name] = {}
        for key in ("wordnet", "emoji"):
            try:
                if key == "wordnet":
                    value = float(ndcg(served(kind, glosses), queries, gallery, right).mean())
                else:
                    value = float(judged(centred_scores(served(kind, images), a, b, y.mean(0)))["top-5"].mean())
                found[name][key] = round(value, 4)
            except SutureError as error:
                found[name][key] = str(error).split(":")[-1].strip().split(";")[0]
        print(name, found[name], flush=True)
    return found


def served(kind: type[Aligner], survey: Survey) -> Alignment:
    """The fit with defaults. Raises `SutureError` where it cannot translate."""
    alignment = kind().fit_survey(survey)
    alignment.translate()
    return alignment


def cell(value: float | str | None) -> str:
    """A number, or a dash for what has no answer."""
    return f"{value:.3f}" if isinstance(value, float) else "-"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    data = parser.parse_args().data
    store = results.FOLDER / "methods.json"
    if data is not None:
        store.write_text(json.dumps(measure(data), indent=1) + "\n", encoding="utf-8")
    held_out = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    table = [
        [
            f"`{name}`",
            kind.summary,
            kind.needs,
            gives(kind),
            way_back(kind),
            COST.get(name, COST["affine"] if kind.affine else "-"),
            cell(held_out.get(name, {}).get("wordnet")),
            cell(held_out.get(name, {}).get("emoji")),
            ", ".join(f"`{f.name}={f.default}`" for f in fields(kind)) or "-",
            kind.paper,
        ]
        for name, kind in ALIGNERS.items()
    ]
    columns = (
        "method",
        "what it does",
        "needs",
        "gives",
        "invertible",
        "cost",
        "wordnet",
        "emoji",
        "parameters",
        "source",
    )
    text = results.markdown(columns, table).replace("| ---:", "| ---")
    path = Path(__file__).parents[1] / "docs" / "methods.md"
    path.write_text(f"{HEAD}\n\n{text}\n\n{REST}\n", encoding="utf-8")


REST = """## Beside the table

Parts that are no method of their own, in Python:

* `suture.aligners.add_space` (`suture extend`): a space more in an alignment of many, the others as they were.
* `aligners.units.split`: `split`, the shared and private part of either space by CCA; `contrast`, contrastive PCA (Abid
  et al. 2018).
* `aligners.units.clusters`: spectral clusters of units; semi, bipartite and canonical correlation side by side (Li et
  al. 2016).
* `aligners.units.order`: `nested` and `truncated` put any map in the principal order of its target and cut it short
  (Kusupati et al. 2022); `simplex_map` joins spaces by class labels alone (Biondi et al. 2024); `recombined` joins maps
  from elsewhere block by block on a few pairs (Zhang et al. 2024).
* `aligners.unpaired.anchors`: `bootstrapped`, anchors found from a few pairs (Cannistraci et al. 2023).

`rotation-ridge` is the closed-form path of lambda-orthogonality: its `strength` goes from least squares (0) to the
rotation. On emoji the subspace methods beat ridge in top-1 (.208 with CCA and .209 with PLS against .152), and the
affine `rotation-ridge` is as good (.212); local CKA (.036) and graph matching (.110 against .211 in one-to-one
matching) do not, with 966 pairs in 1,280 dims. `sparse-units` was not measured: choosing its penalty between spaces so
wide takes longer than four minutes; set it (`--set penalty=0.05`)."""


if __name__ == "__main__":
    main()

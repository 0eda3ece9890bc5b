"""Images and their names, few pairs and spaces far apart: subspaces, local CKA and graph matching against affine maps.

`--data DIR` holds a set "emoji": `efficientnet-lite0` and `minilm-l6` with `fit.npy` and `test.npy`. 966 pairs are
known; of 645 others each image is to find its name: one to one (Hungarian), and among the first ones (top-1, top-5).
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from suture.aligners import Aligner, Procrustes, Ridge, RotationRidge, Subspace
from suture.aligners.measures.bootstrap import Bootstrap
from suture.aligners.measures.local_cka import local_cka
from suture.aligners.unpaired.graph_matching import kernel, matched

import results
from quality import rows


def scores(alignment: Aligner, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Cosines ``(m, m)`` of mapped images ``a`` and names ``b``, centred, of a map fitted on ``x`` and ``y``."""
    mapped = alignment.fit(x, y).translate()(a) - y.mean(0)
    return normalize(mapped, dim=1) @ normalize(b - y.mean(0), dim=1).T


def judged(score: Tensor) -> dict[str, Tensor]:
    """Per image: whether it is matched with its own name, finds it first, and among the first five."""
    from scipy.optimize import linear_sum_assignment

    own = torch.arange(len(score))
    top = score.topk(5, dim=1).indices
    pairs = torch.from_numpy(linear_sum_assignment(score.numpy(), maximize=True)[1])
    found = {"matching": pairs == own, "top-1": top[:, 0] == own, "top-5": (top == own[:, None]).any(1)}
    return {name: value.double() for name, value in found.items()}


def run(data: Path | None, *, quick: bool) -> None:
    """Measure and write the table."""
    if data is None:
        raise SystemExit("emoji: give the dumps with --data DIR")
    sides = [data / "emoji" / name for name in ("efficientnet-lite0", "minilm-l6")]
    (x, y), (a, b) = ([rows(side, part) for side in sides] for part in ("fit", "test"))
    if quick:
        x, y, a, b = x[:300], y[:300], a[:50], b[:50]
    found = {
        "procrustes": judged(scores(Procrustes(), x, y, a, b)),
        "ridge (GCV)": judged(scores(Ridge(), x, y, a, b)),
        "rotation-ridge": judged(scores(RotationRidge(), x, y, a, b)),
        **{f"subspace ({kind})": judged(scores(Subspace(kind=kind), x, y, a, b)) for kind in ("cca", "pls", "pca")},
        "local CKA": judged(local_cka(x, y, a, b)),
    }
    known = len(x)
    order = matched(kernel(torch.cat([x, a])), kernel(torch.cat([y, b])), known=known, restarts=1)[known:] - known
    own = (order == torch.arange(len(a))).double()
    found["graph matching"] = {"matching": own, "top-1": own * torch.nan, "top-5": own * torch.nan}
    table = []
    for name, values in found.items():
        cells = []
        for metric, each in values.items():
            if bool(each.isnan().any()):
                cells.append("-")
                continue
            boot = Bootstrap({"this": each, "ridge": found["ridge (GCV)"][metric]})
            gain = boot.difference("this", "ridge")
            cells.append(f"{float(each.mean()):.3f} ({gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}])")
        table.append([name, *cells])
        print(table[-1], flush=True)
    if not quick:
        columns = ("method", *(f"{metric} (less ridge)" for metric in found["ridge (GCV)"]))
        results.write("emoji", f"{len(x)} pairs, {len(a)} images held out.", results.markdown(columns, table))

"""Named coordinates: concepts and simplex targets join spaces that share names and no item."""

import pytest
import torch
from core_examples import rotation, rows
from scipy.optimize import nnls
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from suture.aligners import (
    Concepts,
    LabelledAligner,
    RefusedError,
    Simplex,
    SutureError,
    UsageError,
    load,
    save_alignment,
)
from suture.aligners.named.agreement import auroc, contributions, spearman
from suture.aligners.named.sparse_code import SparseCode

NAMES = ["bird", "cat", "dog", "fish"]


def labelled(n: int, dim: int, seed: int) -> tuple[torch.Tensor, list[str]]:
    """Rows of an encoder ``seed`` about the centre of their label, in a latent space that all encoders see."""
    centres = 2 * rows(4, 6, seed=50)
    which = torch.randint(0, 4, (n,), generator=torch.Generator().manual_seed(seed))
    latent = centres[which] + 0.7 * rows(n, 6, seed=seed + 1)
    seen = latent @ torch.cat([rotation(6, seed=seed + 2), torch.zeros(6, dim - 6, dtype=torch.float64)], 1)
    return seen + rows(dim, seed=seed + 3), [NAMES[i] for i in which.tolist()]


def spaces() -> tuple[dict[str, torch.Tensor], dict[str, list[str]]]:
    (x, a), (y, b) = labelled(300, 7, 1), labelled(240, 9, 2)
    return {"source": x, "target": y}, {"source": a, "target": b}


ALL: list[LabelledAligner] = [
    Simplex(),
    Concepts(),
    Concepts(standardise=False),
    Concepts(kind="sparse"),
    Concepts(kind="ridge"),
    Concepts(kind="logistic"),
]


@pytest.mark.parametrize("aligner", ALL, ids=lambda a: f"{a.name} {a.parameters()}")
def test_rows_of_two_encoders_meet_by_their_names(aligner: LabelledAligner, tmp_path: object) -> None:
    both, names = spaces()
    alignment = aligner.fit_labelled(both, names)
    assert alignment.provenance["names"] == NAMES
    x, y = (alignment.map_of(side)(rows_) for side, rows_ in both.items())
    assert x.shape[1] == y.shape[1] == alignment.shared_dim
    near = (torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(y, dim=1).T).argmax(1)
    right = [names["source"][i] == names["target"][j] for i, j in enumerate(near.tolist())]
    assert sum(right) > 0.9 * len(right)
    held = alignment.provenance["held_out"]["target"]
    assert held["rows"] == 48
    assert held["auroc"] > 0.95
    assert held["accuracy"] > 0.85 > 0.6 > held["most_frequent"]
    save_alignment(alignment, f"{tmp_path}/m.safetensors")
    assert torch.equal(load(f"{tmp_path}/m.safetensors").map_of("source")(both["source"]), x)
    back = alignment.translate("source", "target")(both["source"])
    centres = torch.stack([both["target"][[n == name for n in names["target"]]].mean(0) for name in NAMES])
    found = torch.cdist(back, centres).argmin(1)
    assert float((found == torch.tensor([NAMES.index(n) for n in names["source"]])).double().mean()) > 0.9


@pytest.mark.parametrize("kind", ["cosine", "sparse"])
def test_names_that_encoders_embed_need_no_labels(kind: str) -> None:
    """The embedded names lie elsewhere than the items (a gap between modalities): each is taken about its own mean."""
    both, names = spaces()
    concepts = {
        side: torch.stack([x[[n == name for n in names[side]]][:5].mean(0) for name in NAMES]) + 5
        for side, x in both.items()
    }
    alignment = Concepts(kind=kind, penalty=0.01).fit_concepts(both, concepts, NAMES)  # type: ignore[arg-type]
    for side, x in both.items():
        top = alignment.map_of(side)(x).argmax(1).tolist()
        assert sum(NAMES[t] == n for t, n in zip(top, names[side], strict=True)) > 0.85 * len(x)
    assert alignment.provenance["held_out"] == {"source": None, "target": None}


def test_a_rotated_space_has_the_same_coordinates() -> None:
    both, names = spaces()
    turned = {**both, "target": 3 * both["source"] @ rotation(7, seed=9) + 4}
    same = {**names, "target": names["source"]}
    for aligner in ALL:
        alignment = aligner.fit_labelled(turned, same)
        s, t = (alignment.map_of(side)(x) for side, x in turned.items())
        # The logistic solver stops within a hundredth of the logits.
        loose = isinstance(aligner, Concepts) and aligner.kind == "logistic"
        torch.testing.assert_close(s, t, atol=1e-2 if loose else 2e-4, rtol=0)


def test_standardised_coordinates_have_mean_0_and_variance_1() -> None:
    both, names = spaces()
    for kind in ("cosine", "sparse", "ridge", "logistic"):
        s = Concepts(kind=kind).fit_labelled(both, names).map_of("source")(both["source"])
        torch.testing.assert_close(s.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-5, rtol=0)
        torch.testing.assert_close(s.var(0, correction=0), torch.ones(4, dtype=torch.float64), atol=1e-4, rtol=0)


def test_a_sparse_code_is_non_negative_least_squares_with_a_price() -> None:
    concepts, x, penalty = rows(6, 9, seed=3), rows(20, 9, seed=4), 0.05
    code = SparseCode.of(concepts, torch.zeros(9, dtype=torch.float64), penalty)
    e, u = torch.nn.functional.normalize(concepts, dim=1), torch.nn.functional.normalize(x, dim=1)
    # ||u - sE||^2 / 2 + penalty sum(s) = ||target - sE||^2 / 2 + const with target E' = u E' - penalty.
    target = u - penalty * torch.linalg.pinv(e).sum(1)
    expected = torch.stack([torch.from_numpy(nnls(e.T.numpy(), t.numpy())[0]) for t in target])
    torch.testing.assert_close(code(x), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(code(x)[:1], code(x[:1]))
    with pytest.raises(RefusedError, match="one of them is the mean"):
        SparseCode.of(torch.zeros(2, 9, dtype=torch.float64), torch.zeros(9, dtype=torch.float64), penalty)


def test_agreement_against_scipy_and_scikit_learn() -> None:
    a, b = rows(50, 3), rows(50, 3, seed=1)
    a[:, 0] = (2 * a[:, 0]).round()  # ties
    torch.testing.assert_close(
        spearman(a, b), torch.tensor([float(spearmanr(a[:, i], b[:, i])[0]) for i in range(3)], dtype=torch.float64)
    )
    truth = b[:, 0] > 0.3
    assert float(auroc(a[:, 0], truth)) == pytest.approx(roc_auc_score(truth.numpy(), a[:, 0].numpy()))
    assert bool(auroc(a[:, 0], truth | True).isnan())
    torch.testing.assert_close(contributions(a, b).sum(1), torch.nn.functional.cosine_similarity(a, b))


def test_what_cannot_be_joined_is_refused() -> None:
    both, names = spaces()
    with pytest.raises(RefusedError, match="at least two labels that all spaces have"):
        Simplex().fit_labelled(both, {**names, "target": ["x"] * 240})
    with pytest.raises(SutureError, match="one label per row"):
        Simplex().fit_labelled(both, {**names, "target": names["target"][1:]})
    with pytest.raises(UsageError, match="at least two spaces"):
        Simplex().fit_labelled({"source": both["source"]}, names)
    with pytest.raises(RefusedError, match="no variance"):
        Concepts().fit_labelled({**both, "target": torch.ones(240, 9)}, names)
    with pytest.raises(UsageError, match="not by pairs"):
        Concepts().fit(both["source"], both["source"])
    with pytest.raises(UsageError, match="learnt from labels"):
        Concepts(kind="ridge").fit_concepts(both, both, NAMES)
    with pytest.raises(RefusedError, match="the same names"):
        Concepts().fit_concepts(both, both, NAMES)
    more = {**names, "target": ["unknown", *names["target"][1:]]}
    assert Simplex().fit_labelled(both, more).provenance["spaces"]["target"]["left_out"] == 1
    for bad in ({"kind": "tree"}, {"penalty": 0.0}):
        with pytest.raises(UsageError, match="concepts"):
            Concepts(**bad)  # type: ignore[arg-type]

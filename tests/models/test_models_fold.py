"""A folded head gives what map and head give, has no number more, and is refused where that cannot be."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.base import BaseEstimator
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, RobustScaler, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC
from torch import nn

from suture.aligners import (
    MLP,
    Affine,
    Identity,
    MeanShift,
    Normalize,
    Pairs,
    Procrustes,
    RefusedError,
    Survey,
    SutureError,
    UsageError,
)
from suture.aligners.choose import NeighbourJudge
from suture.stitching.models import Head, HeadJudge, fold, load_head, save_head
from suture.stitching.models.fold import require_equal

P, Q, C = 7, 5, 3


def a_map(p: int = P, q: int = Q, seed: int = 0) -> Affine:
    g = torch.Generator().manual_seed(seed)
    return Affine(torch.randn(p, q, generator=g, dtype=torch.float64), torch.randn(q, generator=g, dtype=torch.float64))


def numbers(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def assert_folded(head: nn.Module, x: torch.Tensor, along: int = -1) -> nn.Module:
    """The folded head, whose outputs on ``x`` are those of map and head, and whose original is as it was."""
    before = {k: v.clone() for k, v in head.state_dict().items()}
    folded = fold(a_map(), head)
    assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())
    with torch.no_grad():
        expected = head.eval()(a_map()(x.movedim(along, -1)).movedim(-1, along))
        torch.testing.assert_close(folded.eval()(x), expected, rtol=1e-5, atol=1e-5)
    return folded


HEADS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(Q, C),
    "no bias": lambda: nn.Linear(Q, C, bias=False),
    "sequence": lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(Q, 9), nn.ReLU(), nn.Linear(9, C)),
    "nested": lambda: nn.Sequential(nn.Identity(), nn.Sequential(nn.Linear(Q, 4), nn.Tanh()), nn.Linear(4, C)),
    "batch norm": lambda: nn.Sequential(nn.BatchNorm1d(Q), nn.Linear(Q, C)),
    "nested batch norm": lambda: nn.Sequential(nn.Sequential(nn.BatchNorm1d(Q)), nn.Linear(Q, C)),
    "nested dropout": lambda: nn.Sequential(nn.Sequential(nn.Dropout(0.5)), nn.Linear(Q, C)),
}


@pytest.mark.parametrize("name", HEADS)
def test_linear_heads(name: str) -> None:
    torch.manual_seed(0)
    head = HEADS[name]()
    for part in head.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.normal_()  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    folded = assert_folded(head, torch.randn(40, P))
    own = 2 * Q if "batch norm" in name else -C if name == "no bias" else 0
    first = next(part for part in head.modules() if isinstance(part, nn.Linear)).out_features
    assert numbers(folded) == numbers(head) + (P - Q) * first - own  # nothing but the wider rows


@pytest.mark.parametrize(("p", "q"), [(7, 5), (5, 7), (4, 4)])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_and_linear_stay_exact(p: int, q: int, affine: bool) -> None:
    torch.manual_seed(1)
    head = nn.Sequential(nn.LayerNorm(q, elementwise_affine=affine), nn.Linear(q, C))
    if affine:
        nn.init.normal_(head[0].weight)  # type: ignore[arg-type]
        nn.init.normal_(head[0].bias)  # type: ignore[arg-type]
    mapping, x = a_map(p, q), 3 * torch.randn(50, p)
    torch.testing.assert_close(fold(mapping, head)(x), head(mapping(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("between", [nn.Dropout(0.5), nn.Sequential(nn.Identity(), nn.Dropout(0.5))], ids=str)
def test_what_does_nothing_may_stand_between_a_norm_and_its_layer(between: nn.Module) -> None:
    folded = assert_folded(nn.Sequential(nn.LayerNorm(Q), between, nn.Linear(Q, C), nn.ReLU()), torch.randn(40, P))
    assert [name for name, _ in folded.named_children()] == ["0", "1", "2", "3"]


def test_layers_that_are_shared_stay_shared() -> None:
    last = nn.Linear(Q, Q)
    folded = assert_folded(nn.Sequential(nn.Linear(Q, Q), nn.Sequential(last, nn.ReLU()), last), torch.randn(40, P))
    assert folded[1][0] is folded[2]  # type: ignore[index]
    assert folded[2] is not last  # type: ignore[index]


@pytest.mark.parametrize("head", [nn.Conv2d(Q, C, 1), nn.Conv2d(Q, C, 3, stride=2), nn.Conv1d(Q, C, 2)], ids=str)
def test_convolutions_without_padding(head: nn.Module) -> None:
    shape = (2, P, 9, 9) if isinstance(head, nn.Conv2d) else (2, P, 9)
    assert_folded(head, torch.randn(shape), along=1)
    assert_folded(nn.Sequential(head, nn.ReLU()), torch.randn(shape), along=1)


def test_dtype_training_and_gradients_are_kept() -> None:
    head = nn.Linear(Q, C, dtype=torch.float16).requires_grad_(False).train()
    folded = fold(a_map(), head)
    assert (folded.weight.dtype, folded.weight.requires_grad, folded.training) == (torch.float16, False, True)
    assert fold(a_map(), nn.Linear(Q, C).eval()).training is False


class Own(nn.Module):
    """A head of somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.side, self.out = nn.Linear(Q, 6), nn.Linear(6, Q), nn.Linear(6, C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.hidden(x)))


def test_other_modules_name_their_layer() -> None:
    head, x = Own(), torch.randn(9, P)
    torch.testing.assert_close(fold(a_map(), head, layer="hidden")(x), head(a_map()(x)), rtol=1e-5, atol=1e-5)
    with pytest.raises(RefusedError, match="layer=NAME"):
        fold(a_map(), head)
    with pytest.raises(UsageError, match="layers that take 5 dims: hidden"):
        fold(a_map(), head, layer="nonsense")
    with pytest.raises(SutureError, match="takes 6"):
        fold(a_map(), head, layer="out")


class Doubled(Own):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * 2 + 1)


@pytest.mark.parametrize("size", [1.0, 1e-4, 1e-20])
def test_a_head_that_bends_its_input_first_fails_the_proof(size: float) -> None:
    for head in (Doubled(), Own()):
        with torch.no_grad():
            head.out.weight *= size
            head.out.bias *= size
        if isinstance(head, Doubled):
            with pytest.raises(RefusedError, match="differs from map and head"):
                fold(a_map(), head, layer="hidden")
        else:
            fold(a_map(), head, layer="hidden")


def test_outputs_that_are_all_zero_must_be_equal() -> None:
    head = Own()
    nn.init.zeros_(head.out.weight)
    nn.init.zeros_(head.out.bias)
    fold(a_map(), head, layer="hidden")
    require_equal(np.zeros(3), np.zeros(3), torch.float32)
    with pytest.raises(RefusedError, match="differs"):
        require_equal(np.array([0.0, 1e-30]), np.zeros(2), torch.float32)


class Several(Own):
    """Scores in a dict, and more beside them."""

    def forward(self, x: torch.Tensor) -> Any:
        return {"loss": None, "scores": super().forward(x), "more": (torch.tanh(self.hidden(x)),)}


class Silent(Own):
    def forward(self, x: torch.Tensor) -> Any:
        return None


def test_all_that_a_head_gives_is_compared() -> None:
    head, x = Several(), torch.randn(9, P)
    folded = fold(a_map(), head, layer="hidden")
    torch.testing.assert_close(folded(x)["scores"], head(a_map()(x))["scores"], rtol=1e-5, atol=1e-5)
    head.register_forward_hook(lambda module, inputs, out: {**out, "input": inputs[0].sum()})
    with pytest.raises(RefusedError, match="differs from map and head"):
        fold(a_map(), head, layer="hidden")
    with pytest.raises(UsageError, match="gives tensors"):
        fold(a_map(), Silent(), layer="hidden")


@pytest.mark.parametrize("probe", [np.ones((3, P)), np.ones((3, P), np.float32), [[1.0] * P], torch.ones(3, P)])
def test_probes_are_arrays_or_tensors(probe: Any) -> None:
    assert fold(a_map(), nn.Linear(Q, C), probe=probe).in_features == P
    with pytest.raises(SutureError, match="expected vectors of 7 dims"):
        fold(a_map(), nn.Linear(Q, C), probe=np.ones((3, Q)))


@pytest.mark.parametrize(
    ("mapping", "head", "error", "words"),
    [
        (a_map(Q, P), nn.Linear(Q, C), SutureError, "right way round"),
        (a_map() >> Normalize(Q), nn.Linear(Q, C), RefusedError, "only an affine map"),
        (a_map(), nn.Conv2d(Q, C, 3, padding=1), RefusedError, "pads with zeros"),
        (a_map(3, 4), nn.Conv2d(4, 4, 1, groups=2), RefusedError, "groups"),
        (a_map(), nn.Sequential(nn.ReLU(), nn.Linear(Q, C)), RefusedError, "begins with"),
        (a_map(), nn.Sequential(nn.BatchNorm1d(Q, track_running_stats=False), nn.Linear(Q, C)), RefusedError, "batch"),
        (a_map(), nn.Sequential(nn.Dropout()), RefusedError, "no linear layer"),
        (a_map(), "head.pt", UsageError, "expected a torch module"),
    ],
)
def test_what_cannot_be_folded_is_refused(mapping: Any, head: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fold(mapping, head)


def test_an_alignment_folds_by_its_translation() -> None:
    x = np.random.default_rng(0).normal(size=(60, P))
    y = x @ np.linalg.qr(np.random.default_rng(1).normal(size=(P, P)))[0][:, :Q]
    alignment, head = Procrustes().fit(x, y), nn.Linear(Q, C, dtype=torch.float64)
    rows = torch.from_numpy(x)
    torch.testing.assert_close(fold(alignment, head)(rows), head(alignment.translate()(rows)))
    with pytest.raises(RefusedError, match="kind residual"):
        fold(MLP(steps=1).fit(np.tile(x, (4, 1)), np.tile(y, (4, 1))), head)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_folding_twice_is_folding_the_joined_map(p: int, q: int, c: int, seed: int) -> None:
    first, second = a_map(p, q, seed), a_map(q, 6, seed + 1)
    head = Head.of(torch.randn(c, 6, dtype=torch.float64), torch.randn(c, dtype=torch.float64))
    twice, once = head.fold(second).fold(first), head.fold(first >> second)
    torch.testing.assert_close(twice.weight, once.weight)
    torch.testing.assert_close(twice.bias, once.bias)


def test_the_identity_changes_nothing() -> None:
    head = nn.Linear(Q, C)
    torch.testing.assert_close(fold(Identity(Q), head).weight, head.weight)


@pytest.fixture(scope="module")
def items() -> tuple[Any, Any]:
    x, y = make_classification(150, Q, n_informative=4, n_redundant=0, n_classes=3, random_state=0)
    return x, y


def fit_inside(head: Any, x: Any, y: Any) -> Any:
    """Fit an estimator, also what is frozen in it."""
    for frozen in [
        head,
        *(step for _, inner in getattr(head, "steps", []) for step in getattr(inner, "named_steps", {}).values()),
    ]:
        if isinstance(frozen, FrozenEstimator):
            frozen.estimator.fit(x, y)
    return head.fit(x, y)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "head",
    [
        LogisticRegression(),
        LinearSVC(),
        RidgeClassifier(),
        SGDClassifier(random_state=0),
        LinearDiscriminantAnalysis(),
        SVC(kernel="linear"),
        SVC(kernel="linear", decision_function_shape="ovo"),
        MLPClassifier(8, max_iter=20, random_state=0),
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline(StandardScaler(), PCA(3, whiten=True), LinearSVC()),
        Ridge(),
        LinearRegression(),
        SVR(kernel="linear"),
        FrozenEstimator(LogisticRegression()),
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2),
        make_pipeline(make_pipeline(RobustScaler()), make_pipeline(FrozenEstimator(StandardScaler()), LinearSVC())),
    ],
    ids=lambda head: str(head).replace(" ", ""),
)
def test_estimators(head: Any, classes: int, items: tuple[Any, Any]) -> None:
    x, y = items
    y = np.minimum(y, classes - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit_inside(head, x, y)
    mapping = a_map()
    folded = fold(mapping, head)
    rows = np.random.default_rng(3).normal(size=(80, P))
    assert np.array_equal(folded.predict(rows), head.predict(mapping(rows))) or np.allclose(
        folded.predict(rows), head.predict(mapping(rows)), atol=1e-8
    )
    assert folded.n_features_in_ == P
    assert not hasattr(folded, "support_vectors_") or len(folded.support_vectors_) == len(head.support_vectors_)


def test_estimators_of_several_targets(items: tuple[Any, Any]) -> None:
    head = Ridge().fit(items[0], np.random.default_rng(0).normal(size=(150, 4)))
    rows = np.random.default_rng(3).normal(size=(8, P))
    np.testing.assert_allclose(fold(a_map(), head).predict(rows), head.predict(a_map()(rows)))


def test_estimators_that_are_not_linear_are_refused(items: tuple[Any, Any]) -> None:
    for head in (
        RandomForestClassifier(2),
        SVC(kernel="rbf"),
        make_pipeline(Normalizer(), LogisticRegression()),
    ):
        with pytest.raises(RefusedError, match="fold"):
            fold(a_map(), head.fit(*items))
    with pytest.raises(SutureError, match="right way round"):
        fold(a_map(Q, P), LogisticRegression().fit(*items))


def test_head_files_keep_all_that_they_held(tmp_path: Path) -> None:
    head = Head(
        torch.randn(C, Q), torch.randn(C), ("a", "b", "c"), "classifier", {"scale": torch.ones(2)}, {"made": "by hand"}
    )
    save_head(head, tmp_path / "head.safetensors")
    folded = load_head(tmp_path / "head.safetensors").fold(a_map())
    assert (folded.dim, folded.classes, folded.name) == (P, ("a", "b", "c"), "classifier")
    assert folded.metadata == {"made": "by hand"}
    assert torch.equal(folded.rest["scale"], torch.ones(2))
    x = torch.randn(6, P)
    torch.testing.assert_close(folded.scores(x), head.scores(a_map()(x)), rtol=1e-5, atol=1e-5)
    with pytest.raises(RefusedError, match="exists"):
        save_head(head, tmp_path / "head.safetensors")


def test_a_norm_before_the_layer_is_not_passed_over(tmp_path: Path) -> None:
    head = nn.Sequential(nn.LayerNorm(Q), nn.Linear(Q, C))
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    with pytest.raises(SutureError, match=r"expected one linear layer.* found .*0\.weight \(5,\)"):
        load_head(tmp_path / "head.safetensors")


@pytest.mark.parametrize(
    "tensors",
    [
        nn.Sequential(nn.BatchNorm1d(Q, affine=False), nn.Linear(Q, C)).state_dict(),
        {"weight": torch.ones(C, Q), "bias": torch.ones(C), "scale": torch.ones(Q)},
        {"weight": torch.ones(C, Q), "input.running_mean": torch.ones(1)},
    ],
)
def test_what_is_done_before_the_layer_is_not_passed_over(tensors: Any, tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "head.safetensors")
    with pytest.raises(SutureError, match=r"expected weight and bias alone, found .* fold\(alignment, module\)"):
        load_head(tmp_path / "head.safetensors")


@pytest.mark.parametrize("classes", [2, 3])
def test_an_estimators_head_answers_as_the_estimator(classes: int, items: tuple[Any, Any]) -> None:
    x, y = items[0], np.array(["one", "two", "three"])[np.minimum(items[1], classes - 1)]
    model = LogisticRegression().fit(x, y)
    head = Head.of(model)
    answers = [head.labels[i] for i in head.choices(torch.from_numpy(x)).tolist()]
    assert answers == model.predict(x).tolist()
    np.testing.assert_allclose(torch.softmax(head.scores(torch.from_numpy(x)), 1), model.predict_proba(x))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (SVC(kernel="linear"), "one-against-one"),
        (NuSVC(kernel="linear", nu=0.2), "one-against-one"),
        (make_pipeline(StandardScaler(), SVC(kernel="linear")), "one-against-one"),
        (PLSRegression(2), "expected an estimator known to be linear"),
        (SVC(kernel="rbf"), "expected an estimator known to be linear"),
        (Ridge(), "predicts one number"),
        (SVR(kernel="linear"), "predicts one number"),
    ],
    ids=lambda each: str(each).replace(" ", ""),
)
def test_what_is_no_row_a_class_makes_no_head(model: Any, words: str, items: tuple[Any, Any]) -> None:
    with pytest.raises(UsageError, match=words):
        Head.of(model.fit(*items))


def test_a_head_is_compared_with_its_estimator(items: tuple[Any, Any]) -> None:
    model = LogisticRegression().fit(*items)
    model.decision_function = lambda rows: rows @ model.coef_.T  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="the scores of LogisticRegression are not"):
        Head.of(model)


def test_heads_of_wrapped_and_sparse_estimators(items: tuple[Any, Any]) -> None:
    x, y = items
    model = LogisticRegression().fit(x, y)
    for wrapped in (
        FrozenEstimator(model),
        GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2).fit(x, y),
        make_pipeline(make_pipeline("passthrough", StandardScaler()), LogisticRegression()).fit(x, y),
        SVC(kernel="linear").fit(x, y > 0),
    ):
        head = Head.of(wrapped)
        assert [head.labels[i] for i in head.choices(torch.from_numpy(x)).tolist()] == wrapped.predict(x).tolist()
    expected = fold(a_map(), model).predict_proba(x @ np.ones((Q, P)))
    sparse = model.sparsify()
    torch.testing.assert_close(Head.of(sparse).weight, torch.from_numpy(model.coef_.toarray()))
    np.testing.assert_allclose(fold(a_map(), sparse).predict_proba(x @ np.ones((Q, P))), expected)


def test_estimators_that_say_too_little(items: tuple[Any, Any]) -> None:
    class Bare(BaseEstimator):  # type: ignore[misc]
        def fit(self, x: Any, y: Any) -> Any:
            self.coef_ = x
            return self

    with pytest.raises(UsageError, match="n_features_in_"):
        fold(a_map(), Bare().fit(*items))
    for taker in (Head.of, lambda head: fold(a_map(), head)):
        with pytest.raises(UsageError, match="is not: fit it"):
            taker(LogisticRegression())


@pytest.mark.parametrize("kind", [float, bool, np.int16, "U1"])
def test_names_of_classes_survive_a_file(kind: Any, items: tuple[Any, Any], tmp_path: Path) -> None:
    x, y = items
    head = Head.of(LogisticRegression().fit(x, np.minimum(y, 1).astype(kind)))
    save_head(head, tmp_path / "head.safetensors")
    assert load_head(tmp_path / "head.safetensors").classes == head.classes == (("0", "1") if kind == "U1" else (0, 1))


def test_heads_that_no_file_could_hold() -> None:
    weight, bias = torch.zeros(2, 3), torch.zeros(2)
    for classes in (("a", "a"), (1, "1"), (True, 1)):
        with pytest.raises(SutureError, match="differ as text"):
            Head(weight, bias, classes)
    for odd in (0.5, None, float("nan")):
        with pytest.raises(SutureError, match="strings or whole numbers"):
            Head(weight, bias, (odd, 1))  # type: ignore[arg-type]
    with pytest.raises(SutureError, match="expected 2 classes, got 1"):
        Head(weight[:1], bias[:1], ("yes",))
    with pytest.raises(SutureError, match="floating-point"):
        Head(weight.long(), bias)
    with pytest.raises(UsageError, match=r"\.safetensors"):
        save_head(Head(weight, bias), "head.npz")


def test_a_head_says_which_directions_matter() -> None:
    """Of two maps the one that keeps what the head sees is chosen, though the other keeps far more neighbours."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6))
    y = 10 * x
    y[:, 0] = x[:, 0]  # what little the head looks at
    spoilt = {}
    for name, kept in (("seen", [0]), ("unseen", [1, 2, 3, 4, 5])):
        matrix = torch.zeros(6, 6, dtype=torch.float64)
        matrix[kept, kept] = 1.0
        spoilt[name] = matrix

    @dataclass(frozen=True)
    class Kept(MeanShift):
        keep: str = "seen"

        def solve(self, moments: Any) -> Affine:
            return Affine(torch.from_numpy(np.diag([1.0, *[10.0] * 5])) @ spoilt[self.keep], moments.mean_y * 0)

    seen, unseen = Kept(), Kept(keep="unseen")
    survey = Survey.of(Pairs.of(x, y))
    head = Head.of(torch.tensor([[0.0] * 6, [5.0] + [0.0] * 5], dtype=torch.float64))
    judge, neighbours = HeadJudge(survey, head), NeighbourJudge(survey)
    assert float(judge(seen)["head_match"].mean()) == pytest.approx(0)
    assert float(judge(seen)["same_class"].mean()) == 1
    assert float(judge(unseen)["head_match"].mean()) < -0.3
    assert float(neighbours(seen)["overlap@10"].mean()) < float(neighbours(unseen)["overlap@10"].mean())
    with pytest.raises(RefusedError, match="the target has 6"):
        HeadJudge(survey, Head.of(torch.ones(2, 5)))

"""The scikit-learn face: its own contract, pipelines, searches and names."""

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from suture.aligners import ALIGNERS, Procrustes, Ridge, UsageError
from suture.stitching.sklearn import AlignmentTransformer


@parametrize_with_checks([AlignmentTransformer(), AlignmentTransformer("ridge", normalize="none")])
def test_the_contract_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def spaces() -> tuple[Any, Any, Any]:
    """New rows (n, 9), old rows (n, 6), labels (n,)."""
    rng = np.random.default_rng(0)
    latent, labels = rng.normal(size=(400, 6)), rng.integers(0, 3, 400)
    latent[:, :3] += 2.5 * np.eye(3)[labels]
    old = latent @ rng.normal(size=(6, 6)) + 1
    return latent @ rng.normal(size=(6, 9)) + 0.1 * rng.normal(size=(400, 9)), old, labels


PAIRED = [name for name, kind in ALIGNERS.items() if kind.affine and kind.needs == "pairs"]


@pytest.mark.parametrize("name", [*PAIRED, "landmark", "relative", "auto"])
def test_aligners_for_pairs(name: str, spaces: tuple[Any, Any, Any]) -> None:
    new, old, _ = spaces
    new = new[:, :6] if name in ("mean-shift", "identity-ridge") else new  # of spaces of equal width
    transformer = AlignmentTransformer(name).fit(new, target=old)
    out = transformer.transform(new)
    np.testing.assert_allclose(out, transformer.alignment_.translate()(new))
    assert out.shape == (400, 6)


def test_aligners_for_rows_without_pairs(spaces: tuple[Any, Any, Any]) -> None:
    new = spaces[0]
    transformer = AlignmentTransformer("seeded").set_params(aligner__rounds=3)
    rotated = new @ np.linalg.qr(np.random.default_rng(1).normal(size=(9, 9)))[0]
    transformer.fit(new, target=rotated[:390], seeds=[(i, i) for i in range(60)])  # rows need not be as many
    out = transformer.transform(new)
    assert np.mean(np.sum(out * rotated, 1) / np.linalg.norm(out, axis=1) / np.linalg.norm(rotated, axis=1)) > 0.95


def test_parameters_of_the_aligner(spaces: tuple[Any, Any, Any]) -> None:
    transformer = AlignmentTransformer("ridge").set_params(aligner__alpha=0.5)
    assert transformer.aligner == Ridge(alpha=0.5)
    assert transformer.get_params()["aligner__alpha"] == 0.5
    assert clone(transformer).aligner == Ridge(alpha=0.5)
    with pytest.raises(UsageError, match="it has alpha"):
        transformer.set_params(aligner__nonsense=1)
    with pytest.raises(UsageError, match="it has none"):
        AlignmentTransformer("auto").set_params(aligner__alpha=1)
    with pytest.raises(UsageError, match="expected auto or one of"):
        AlignmentTransformer("nonsense").fit(*spaces[:2])


def test_a_frozen_head_chooses_its_map(spaces: tuple[Any, Any, Any]) -> None:
    new, old, labels = spaces
    head = LogisticRegression().fit(old, labels)
    pipe = Pipeline([("align", AlignmentTransformer("ridge")), ("head", FrozenEstimator(head))])
    aligners = [Ridge(alpha=1e6), Ridge(alpha=1e-3)]
    grid = GridSearchCV(pipe, {"align__aligner": aligners}, scoring="accuracy", cv=3)
    grid.fit(new, labels, align__target=old)
    assert grid.best_params_["align__aligner"] == aligners[1]
    assert grid.best_score_ > 0.9 * head.score(old, labels)
    byname = GridSearchCV(pipe, {"align__aligner__alpha": [1e6, 1e-3]}, scoring="accuracy", cv=3)
    assert byname.fit(new, labels, align__target=old).best_params_ == {"align__aligner__alpha": 1e-3}


def test_a_search_by_its_own_score(spaces: tuple[Any, Any, Any]) -> None:
    new, old, _ = spaces
    grid = GridSearchCV(AlignmentTransformer(), {"aligner": ["mean-shift", "ridge"]}, cv=4, error_score=0.0)
    with pytest.warns(FitFailedWarning, match="fits failed"):  # mean-shift needs equal widths
        assert grid.fit(new, old).best_params_ == {"aligner": "ridge"}
    pipe = make_pipeline(StandardScaler(), AlignmentTransformer("ridge"))
    assert cross_val_score(pipe, new, old).mean() > 0.6
    with pytest.raises(ValueError, match="at least 12 rows"):
        grid.best_estimator_.score(new[:11], old[:11])
    for labels in (spaces[2], spaces[2].astype(str), old[:, :1], None):
        with pytest.raises(ValueError, match=r"\(n, 6\).*target="):
            grid.best_estimator_.score(new, labels)
    assert grid.best_estimator_.score(new, spaces[2], target=old) == grid.best_estimator_.score(new, old)


def test_names_of_features(spaces: tuple[Any, Any, Any]) -> None:
    pandas = pytest.importorskip("pandas")
    new, old, _ = spaces
    x = pandas.DataFrame(new, columns=[f"new {i}" for i in range(9)])
    y = pandas.DataFrame(old, columns=[f"old {i}" for i in range(6)])
    transformer = AlignmentTransformer().fit(x, y).set_output(transform="pandas")
    assert list(transformer.feature_names_in_) == list(x)
    assert list(transformer.transform(x)) == list(y)
    with pytest.raises(ValueError, match="feature names"):
        transformer.transform(x[x.columns[::-1]])
    plain = AlignmentTransformer().fit(new, old)
    assert list(plain.get_feature_names_out()[:2]) == ["alignmenttransformer0", "alignmenttransformer1"]


def test_there_and_back(spaces: tuple[Any, Any, Any]) -> None:
    rows = spaces[0]
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(9, 9)))[0]
    transformer = AlignmentTransformer(Procrustes()).fit(rows, rows @ rotation)
    np.testing.assert_allclose(transformer.inverse_transform(transformer.transform(rows)), rows, atol=1e-9)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for normalize, length in (("none", 3.0), ("auto", 1.0)):  # of rows three times as long as those of the fit
        transformer = AlignmentTransformer(Procrustes(), normalize=normalize).fit(unit, unit @ rotation)
        back = transformer.inverse_transform(transformer.transform(3 * unit))
        np.testing.assert_allclose(back, length * unit, atol=1e-9)
    with pytest.raises(ValueError, match="no exact inverse"):
        AlignmentTransformer().fit(*spaces[:2]).inverse_transform(spaces[1])


def test_weights_count(spaces: tuple[Any, Any, Any]) -> None:
    new, old, _ = spaces
    weights = np.r_[np.ones(200), np.full(200, 3.0)]
    weighted = AlignmentTransformer("least-squares").fit(new, old, weights=weights).transform(new)
    rows = np.repeat(np.arange(400), weights.astype(int))
    repeated = AlignmentTransformer("least-squares").fit(new[rows], old[rows]).transform(new)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-6, atol=1e-6)

"""Folding an affine map into fitted scikit-learn estimators."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import SVC, SVR, NuSVC, NuSVR
from sklearn.utils.validation import check_is_fitted

from ...aligners.errors import RefusedError, UsageError
from ...aligners.maps import Affine

__all__ = ["decision", "fold_estimator", "identity", "is_estimator", "linear_numbers"]

Numbers = NDArray[np.float64]
AFFINE_STEPS = (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, PCA, TruncatedSVD)
PERCEPTRONS = (MLPClassifier, MLPRegressor)
KERNEL_MACHINES = (SVC, NuSVC, SVR, NuSVR)


def is_estimator(head: Any) -> bool:
    """Whether it is a scikit-learn estimator."""
    return isinstance(head, BaseEstimator)


def unwrapped(head: Any) -> Any:
    """The fitted estimator inside of a search or a `FrozenEstimator`. Raises `UsageError` where it is not fitted."""
    while isinstance(head, FrozenEstimator) or "best_estimator_" in vars(head):
        head = head.estimator if isinstance(head, FrozenEstimator) else head.best_estimator_
    try:
        check_is_fitted(head)
    except NotFittedError as error:
        raise UsageError(f"head: expected a fitted estimator, this {type(head).__name__} is not: fit it.") from error
    return head


def width_of(head: Any) -> int:
    """The width of the rows that a fitted estimator takes. Raises `UsageError` where it does not say."""
    parts = [step for _, step in flat(head)] if isinstance(head, Pipeline) else [head]
    dim = next((part.n_features_in_ for part in parts if hasattr(part, "n_features_in_")), None)
    if dim is None:
        raise UsageError(
            f"head: expected an estimator with n_features_in_, the width of its rows, {type(head).__name__} has none; "
            "set it, or refit a search with refit=True."
        )
    return int(dim)


def fold_estimator(mapping: Affine, head: Any) -> Any:
    """A copy of a fitted estimator that takes rows of the map's source; of a search its best estimator.

    Raises `RefusedError` for estimators that are not linear in their input, and where widths do not fit, `UsageError`
    where they are not fitted or do not say how wide their rows are.
    """
    head = unwrapped(head)
    if isinstance(head, Pipeline):
        return fold_pipeline(mapping, head)
    if width_of(head) != mapping.target_dim:
        raise RefusedError(
            f"the map goes from {mapping.source_dim} to {mapping.target_dim} dims, the head takes "
            f"{width_of(head)}. Is the map the right way round (new encoder -> the space that the head knows)?"
        )
    w, b = mapping.weight.double().numpy(), mapping.bias.double().numpy()
    made = copy.deepcopy(head)
    if isinstance(head, PERCEPTRONS):
        made.coefs_[0], made.intercepts_[0] = w @ head.coefs_[0], b @ head.coefs_[0] + head.intercepts_[0]
    elif isinstance(head, KERNEL_MACHINES):
        return replaced_kernel_machine(head, made, w, b)
    elif is_linear(head):
        made.coef_ = dense(head.coef_) @ w.T
        made.intercept_ = np.asarray(head.intercept_ + dense(head.coef_) @ b)
    else:
        raise RefusedError(
            f"fold: {type(head).__name__} is not linear in its input, so a map cannot be folded into it; stitch it in "
            "front: stitch(encoder, alignment, head.predict)."
        )
    made.n_features_in_ = mapping.source_dim
    if hasattr(made, "feature_names_in_"):
        del made.feature_names_in_
    return made


def is_linear(head: Any) -> bool:
    """Whether the predictions of an estimator depend on its input by ``coef_`` and ``intercept_`` alone."""
    family = type(head).__module__.startswith(("sklearn.linear_model.", "sklearn.svm."))
    known = family or isinstance(head, LinearDiscriminantAnalysis)
    return known and all(name in vars(head) for name in ("coef_", "intercept_"))


def dense(coefficients: Any) -> Numbers:
    """Coefficients in float64, also where `sparsify` made a sparse matrix of them."""
    full = coefficients.toarray() if hasattr(coefficients, "toarray") else coefficients
    return np.asarray(full, np.float64)


def linear_numbers(head: Any) -> tuple[Numbers, Numbers, NDArray[Any] | None]:
    """``weight`` ``(c, q)``, ``bias`` ``(c,)`` and the classes ``(c,)``, or None, of a fitted linear estimator.

    Of two classes, for which estimators have one row, two rows come back, the first of zeros. They are run against the
    estimator, scores and choices, on a probe of random rows. Raises `UsageError` for whatever is not
    ``x @ weight.T + bias`` with a row a class, `RefusedError` for pipelines with a step that is not affine.
    """
    own = unwrapped(head)
    if isinstance(own, Pipeline):
        own = fold_pipeline(identity(width_of(own)), own)
    name, known = type(own).__name__, getattr(own, "classes_", None)
    machine = isinstance(own, KERNEL_MACHINES) and own.kernel == "linear"
    if machine and known is not None and len(known) > 2:
        raise UsageError(
            f"head: {name} decides {len(known)} classes by {len(known) * (len(known) - 1) // 2} one-against-one "
            "machines, which are no scores of classes; take LinearSVC, or fold the estimator: fold(alignment, head)."
        )
    if not (machine or is_linear(own)):
        raise UsageError(
            f"head: expected an estimator known to be linear in its input by coef_ and intercept_, got {name}; give "
            "weight and bias as arrays, or stitch the map in front: stitch(encoder, alignment, head.predict)."
        )
    weight = np.atleast_2d(dense(own.coef_))
    bias = np.broadcast_to(np.asarray(own.intercept_, np.float64), (len(weight),)).copy()
    if known is None and len(weight) == 1:
        raise UsageError(
            f"head: {name} predicts one number and chooses among no classes; fold it as it is: fold(alignment, head)."
        )
    if known is not None and len(known) == 2 and len(weight) == 1:
        weight, bias = (np.concatenate([np.zeros_like(v), v]) for v in (weight, bias))
    if known is not None and len(known) != len(weight):
        raise UsageError(f"head: {name} has {len(weight)} rows for {len(known)} classes.")
    rows = np.random.default_rng(0).normal(size=(64, weight.shape[1]))
    scores, came = rows @ weight.T + bias, decision(own, rows).reshape(len(rows), -1)
    with nameless():
        predicted = own.predict(rows)
    expected = scores[:, 1:] if came.shape[1] == 1 else scores
    same = came.shape == expected.shape and bool(np.abs(came - expected).max() <= 1e-6 * np.abs(came).max())
    if not same or (known is not None and not np.array_equal(np.asarray(known)[scores.argmax(1)], predicted)):
        raise UsageError(
            f"head: the scores of {name} are not x @ coef_.T + intercept_ with the highest one chosen; stitch the map "
            "in front: stitch(encoder, alignment, head.predict)."
        )
    return weight, bias, known


def identity(dim: int) -> Affine:
    """The affine map that changes nothing."""
    return Affine(torch.eye(dim, dtype=torch.float64), torch.zeros(dim, dtype=torch.float64))


def replaced_kernel_machine(head: Any, made: Any, w: Numbers, b: Numbers) -> Any:
    """A support vector machine with a linear kernel: ``k(x W + b, v) = x (W v) + b v``."""
    if head.kernel != "linear" or head.support_vectors_.ndim != 2:
        raise RefusedError(f"fold: {type(head).__name__} with kernel {head.kernel!r} is not linear in its input.")
    vectors = np.asarray(head.support_vectors_)
    # One constant a machine, the sum of dual coefficients times b v; one-against-one machines use a part of the vectors
    # each, which is why their own coefficients are asked. Both names of the constant are kept in step.
    shift = np.asarray(head.coef_) @ b
    made.support_vectors_ = np.ascontiguousarray(vectors @ w.T)
    made.shape_fit_ = (head.shape_fit_[0], w.shape[0])
    made.intercept_ = head.intercept_ + shift
    two_classes = isinstance(head, SVC | NuSVC) and len(head.classes_) == 2
    made._intercept_ = -made.intercept_ if two_classes else made.intercept_
    made.n_features_in_ = w.shape[0]
    if hasattr(made, "feature_names_in_"):
        del made.feature_names_in_
    return made


def flat(head: Pipeline) -> list[tuple[str, Any]]:
    """The steps of a pipeline, and of those in it, without what is wrapped around them."""
    steps: list[tuple[str, Any]] = []
    for name, step in head.steps:
        inner = unwrapped(step) if is_estimator(step) else step
        steps += [(f"{name}__{n}", s) for n, s in flat(inner)] if isinstance(inner, Pipeline) else [(name, inner)]
    return steps


def fold_pipeline(mapping: Affine, head: Pipeline) -> Any:
    """The last step of a pipeline, with the map and the scalers before it folded in."""
    *steps, (_, last) = flat(head)
    for name, step in steps:
        if step in (None, "passthrough"):
            continue
        if not isinstance(step, AFFINE_STEPS) or getattr(step, "clip", False):
            raise RefusedError(
                f"fold: the step '{name}' ({type(step).__name__}) is not one of those known to be affine: "
                f"{', '.join(t.__name__ for t in AFFINE_STEPS)}; stitch the map in front of the pipeline instead."
            )
        if step.n_features_in_ != mapping.target_dim:
            raise RefusedError(
                f"the map gives {mapping.target_dim} dims, the step '{name}' of the head takes {step.n_features_in_}."
            )
        # An affine step is known by what it makes of the origin and of the axes.
        points = np.concatenate([np.zeros((1, mapping.target_dim)), np.eye(mapping.target_dim)])
        with nameless():
            images = torch.from_numpy(np.asarray(step.transform(points), np.float64))
        joined = mapping >> Affine(images[1:] - images[0], images[0])
        assert isinstance(joined, Affine)  # two affine maps are one
        mapping = joined
    if last in (None, "passthrough"):
        raise UsageError("fold: this pipeline ends without an estimator.")
    return fold_estimator(mapping, last)


def decision(head: Any, rows: Any) -> Numbers:
    """What an estimator makes of rows, as numbers: scores or probabilities of its classes, or its predictions."""
    with nameless():
        for name in ("decision_function", "predict_proba", "predict"):
            if hasattr(head, name):
                return np.asarray(getattr(head, name)(rows), np.float64)
    raise UsageError(f"head: expected an estimator that predicts, got {type(head).__name__}.")


@contextmanager
def nameless() -> Iterator[None]:
    """Without the warning that rows have no names of features, where an estimator was fitted on some: mapped rows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        yield

"""Folding an affine map into fitted scikit-learn estimators."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler
from sklearn.svm import SVC, SVR, NuSVC, NuSVR
from sklearn.utils.validation import check_is_fitted

from ...aligners.errors import RefusedError, UsageError
from ...aligners.maps import Affine

__all__ = ["decision", "fold_estimator", "is_estimator"]

Numbers = NDArray[np.float64]
AFFINE_STEPS = (StandardScaler, MinMaxScaler, MaxAbsScaler, PCA, TruncatedSVD)
PERCEPTRONS = (MLPClassifier, MLPRegressor)
KERNEL_MACHINES = (SVC, NuSVC, SVR, NuSVR)


def is_estimator(head: Any) -> bool:
    """Whether it is a scikit-learn estimator."""
    return isinstance(head, BaseEstimator)


def fold_estimator(mapping: Affine, head: Any) -> Any:
    """A copy of a fitted estimator that takes rows of the map's source.

    Raises `RefusedError` for estimators that are not linear in their input, and where widths do not fit.
    """
    check_is_fitted(head)
    if isinstance(head, Pipeline):
        return fold_pipeline(mapping, head)
    if head.n_features_in_ != mapping.target_dim:
        raise RefusedError(
            f"the map goes from {mapping.source_dim} to {mapping.target_dim} dims, the head takes "
            f"{head.n_features_in_}. Is the map the right way round (new encoder -> the space that the head knows)?"
        )
    w, b = mapping.weight.double().numpy(), mapping.bias.double().numpy()
    made = copy.deepcopy(head)
    if isinstance(head, PERCEPTRONS):
        made.coefs_[0], made.intercepts_[0] = w @ head.coefs_[0], b @ head.coefs_[0] + head.intercepts_[0]
    elif isinstance(head, KERNEL_MACHINES):
        return replaced_kernel_machine(head, made, w, b)
    elif is_linear(head):
        made.coef_ = np.asarray(head.coef_, np.float64) @ w.T
        made.intercept_ = np.asarray(head.intercept_ + np.asarray(head.coef_, np.float64) @ b)
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


def fold_pipeline(mapping: Affine, head: Pipeline) -> Any:
    """The last step of a pipeline, with the map and the scalers before it folded in."""
    *steps, (_, last) = head.steps
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
        images = torch.from_numpy(np.asarray(step.transform(points), np.float64))
        joined = mapping >> Affine(images[1:] - images[0], images[0])
        assert isinstance(joined, Affine)  # two affine maps are one
        mapping = joined
    if last in (None, "passthrough"):
        raise UsageError("fold: this pipeline ends without an estimator.")
    return fold_estimator(mapping, last)


def decision(head: Any, rows: Any) -> Numbers:
    """What an estimator makes of rows, as numbers: scores or probabilities of its classes, or its predictions."""
    for name in ("decision_function", "predict_proba", "predict"):
        if hasattr(head, name):
            return np.asarray(getattr(head, name)(rows), np.float64)
    raise UsageError(f"head: expected an estimator that predicts, got {type(head).__name__}.")

"""Any aligner as a scikit-learn transformer: in a `Pipeline`, under `GridSearchCV`, with names of features.

A map that is chosen by what an old, frozen head makes of it, on labelled rows of the new encoder:

    pipe = Pipeline([("align", AlignmentTransformer("ridge")), ("head", FrozenEstimator(old_head))])
    grid = GridSearchCV(pipe, {"align__aligner": ["procrustes", "ridge"]}, scoring="accuracy")
    grid.fit(new_rows, labels, align__target=old_rows)
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import (
    _get_feature_names,
    check_array,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from ..aligners import ALIGNERS, Aligner, Alignment, Pairs, Survey, UnpairedAligner
from ..aligners.errors import UsageError
from ..aligners.fit import fit as fit_auto
from ..aligners.measures.retrieval import overlap, search
from .models.stitch import Unit, model_map

__all__ = ["AlignmentTransformer"]

Rows = NDArray[Any]
DTYPES = (np.float64, np.float32)
NEIGHBOURS = 10


class AlignmentTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Rows ``(n, p)`` of one space into another ``(n, q)``, by a map fitted on pairs.

    ``aligner``: a name from `suture.aligners.ALIGNERS`, "auto" (the best out of fold), or an aligner. Parameters of an
    aligner are reached by its own names for them, ``aligner__alpha`` of "ridge" or ``aligner__strength`` of
    "rotation-ridge", also where it was given by name. ``normalize``: as in `model_map`; "auto" gives unit rows where
    the target's were.

    The target rows are ``y`` of `fit`, or, inside a pipeline whose ``y`` are labels, its keyword ``target``
    (``pipe.fit(X, labels, align__target=Y)``), which cross-validation splits along with the rows. A one-dimensional
    ``y`` is a target of one dim.

    Attributes: ``alignment_``, with all that the fit knows (`suture.aligners.Alignment`), ``n_features_in_``, and
    ``feature_names_in_`` where the rows had names.
    """

    def __init__(self, aligner: str | Aligner = "procrustes", *, normalize: Unit = "auto") -> None:
        self.aligner = aligner
        self.normalize = normalize

    def __sklearn_tags__(self) -> Tags:
        """A target is needed; float32 and float64 are kept."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters; with ``deep`` those of the aligner, too."""
        params = super().get_params(deep=False)
        if deep and isinstance(self.aligner, Aligner):
            params |= {f"aligner__{f.name}": getattr(self.aligner, f.name) for f in fields(self.aligner)}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters; those of the aligner make a new one, for aligners do not change."""
        inner = {name.removeprefix("aligner__"): params.pop(name) for name in list(params) if name[:9] == "aligner__"}
        super().set_params(**params)
        if inner:
            aligner = self._named()
            if aligner is None or not set(inner) <= {f.name for f in fields(aligner)}:
                known = "none" if aligner is None else ", ".join(f.name for f in fields(aligner))
                raise UsageError(f"aligner {self.aligner}: there is no parameter {', '.join(inner)}; it has {known}.")
            self.aligner = replace(aligner, **inner)
        return self

    def _named(self) -> Aligner | None:
        """The aligner; None stands for "auto"."""
        if isinstance(self.aligner, Aligner):
            return self.aligner
        if self.aligner == "auto":
            return None
        if self.aligner not in ALIGNERS:
            raise UsageError(f"aligner: expected auto or one of {', '.join(ALIGNERS)}, got {self.aligner!r}.")
        return ALIGNERS[self.aligner]()

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        target: Any = None,
        weights: Any = None,
        keys: Any = None,
        seeds: Any = None,
    ) -> Self:
        """Fit the map of rows ``X`` ``(n, p)`` to ``target`` ``(n, q)``, by default ``y``.

        ``weights`` and ``keys`` ``(n,)`` as in `Aligner.fit`. Aligners for rows without pairs take a ``target`` of any
        length and, if they need some known pairs, their row numbers as ``seeds`` ``(s, 2)``.
        Raises `ValueError` on rows that do not fit together.
        """
        aligner = self._named()
        x = validate_data(self, X, dtype=DTYPES, ensure_min_samples=2)
        goal = y if target is None else target
        if goal is None:
            raise ValueError(
                "AlignmentTransformer requires y to be passed, but the target y is None: give the rows of the target "
                "space as y, or as target=."
            )
        names = _get_feature_names(goal)
        rows = check_array(goal, dtype=x.dtype, ensure_2d=False, input_name="target")
        rows = rows.reshape(-1, 1) if rows.ndim == 1 else rows
        if not isinstance(aligner, UnpairedAligner):
            check_consistent_length(x, rows)
        self.alignment_ = self._fitted(aligner, x, rows, weights, keys, seeds)
        self._map = model_map(self.alignment_, normalize=self.normalize)
        self._names_out = None if names is None else np.asarray(names, object)
        return self

    @staticmethod
    def _fitted(aligner: Aligner | None, x: Rows, y: Rows, weights: Any, keys: Any, seeds: Any) -> Alignment:
        weights, keys = (None if v is None else torch.as_tensor(np.asarray(v)) for v in (weights, keys))
        if isinstance(aligner, UnpairedAligner):
            return aligner.fit_unpaired(x, y, seeds=seeds)
        if aligner is None:
            return fit_auto(Survey.of(Pairs.of(x, y, keys, weights)))
        return aligner.fit(x, y, keys=keys, weights=weights)

    def transform(self, X: Any) -> Rows:
        """Rows ``(n, p)`` in the target space ``(n, q)``."""
        check_is_fitted(self, "alignment_")
        return self._map(np.asarray(validate_data(self, X, dtype=DTYPES, reset=False)))

    def inverse_transform(self, X: Any) -> Rows:
        """Rows ``(n, q)`` back in the source space ``(n, p)``. Raises `RefusedError` where the map has no way back."""
        check_is_fitted(self, "alignment_")
        back = model_map(self.alignment_, side="target", into="source", normalize=self.normalize)
        return back(check_array(X, dtype=DTYPES))

    def score(self, X: Any, y: Any = None, *, target: Any = None) -> float:
        """Mean overlap@10 with the target rows: the share of each one's ten nearest that the mapped rows find.

        What `suture fit` chooses by. Raises `ValueError` for fewer than 12 rows, and for labels as ``y`` without
        ``target``.
        """
        check_is_fitted(self, "alignment_")
        shape = np.shape(y if target is None else target)
        if (shape[1] if len(shape) == 2 else 1) != self._map.target_dim or len(shape) not in (1, 2):
            raise ValueError(
                f"score: expected rows of the target space, (n, {self._map.target_dim}), got shape {shape}; where y "
                "are labels, give the rows as target=."
            )
        goal = check_array(y if target is None else target, dtype=DTYPES, ensure_2d=False, input_name="target")
        mapped = torch.from_numpy(self.transform(X))
        check_consistent_length(mapped, goal)
        if len(goal) < NEIGHBOURS + 2:
            raise ValueError(
                f"expected at least {NEIGHBOURS + 2} rows to find {NEIGHBOURS} neighbours in, got {len(goal)}."
            )
        truth, own = torch.as_tensor(goal).reshape(len(goal), -1).to(mapped), torch.arange(len(goal))
        found = (search(truth, rows, exclude=own).top for rows in (mapped, truth))
        return float(overlap(*found).mean())

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """The names ``(q,)`` of the target's features; alignmenttransformer0, 1, ... where it had none."""
        check_is_fitted(self, "alignment_")
        if self._names_out is not None:
            return self._names_out
        prefix = type(self).__name__.lower()
        return np.asarray([f"{prefix}{i}" for i in range(self._map.target_dim)], dtype=object)

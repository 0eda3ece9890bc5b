"""How good a map is, and how alike two spaces are.

`MEASURES` compares two sets of rows ``(n, p)`` and ``(n, q)``, row i of both being the same item. What a value means
shows only beside its null: `permutation_null`. All are larger for spaces that are more alike but the `DISTANCES`.
"""

from .cca import mean_cca, pwcca, svcca
from .cka import debiased_cka, linear_cka, rbf_cka
from .neighbours import mutual_knn, mutual_knn_null
from .rows import Measure, Null, of_moments, permutation_null
from .rsa import rdm, rsa
from .shape import angular_distance, procrustes_cosine, procrustes_distance

MEASURES: dict[str, Measure] = {
    "cka": of_moments(linear_cka, "xx", "xy", "yy"),
    "cka-debiased": debiased_cka,
    "cka-rbf": rbf_cka,
    "procrustes": of_moments(procrustes_distance, "xy", "x", "y"),
    "angular": of_moments(angular_distance, "xy", "x", "y"),
    "cca": of_moments(mean_cca, "xx", "xy", "yy"),
    "svcca": of_moments(svcca, "xx", "xy", "yy"),
    "pwcca": of_moments(pwcca, "xx", "xy", "yy"),
    "mutual-knn": mutual_knn,
    "rsa": rsa,
}

DISTANCES = frozenset({"procrustes", "angular"})

__all__ = [
    "DISTANCES",
    "MEASURES",
    "Measure",
    "Null",
    "angular_distance",
    "debiased_cka",
    "linear_cka",
    "mean_cca",
    "mutual_knn",
    "mutual_knn_null",
    "permutation_null",
    "procrustes_cosine",
    "procrustes_distance",
    "pwcca",
    "rbf_cka",
    "rdm",
    "rsa",
    "svcca",
]

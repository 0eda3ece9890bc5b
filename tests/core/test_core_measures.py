"""Laws of the measures of similarity: what they are blind to, what they see, and where their zero lies."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from core_examples import generator, rotation, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import pdist

from suture.aligners import Moments, SutureError, UsageError
from suture.aligners.measures import (
    DISTANCES,
    MEASURES,
    angular_distance,
    debiased_cka,
    linear_cka,
    mean_cca,
    mutual_knn,
    mutual_knn_null,
    permutation_null,
    procrustes_cosine,
    procrustes_distance,
    pwcca,
    rbf_cka,
    rdm,
    rsa,
    svcca,
)
from suture.aligners.measures.cka import kernel_hsic, plain_hsic

every = pytest.mark.parametrize("name", MEASURES)
SYMMETRICAL = sorted(set(MEASURES) - {"pwcca"})


def related(n: int = 80, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = rows(n, 6, seed=seed)
    return x, x[:, :5] @ rotation(5, seed) + 0.5 * rows(n, 5, seed=seed + 1)


def alike(name: str, value: float) -> float:
    return -value if name in DISTANCES else value


def moments(x, y) -> Moments:
    return Moments.of(x, y)


def test_there_are_measures():
    assert len(MEASURES) == 10
    assert set(MEASURES) > DISTANCES


@every
def test_a_float_of_any_kind_of_rows_that_are_left_alone(name):
    x, y = related()
    before = x.clone(), y.clone()
    value = MEASURES[name](x, y)
    assert type(value) is float
    assert MEASURES[name](x.numpy(), y.numpy()) == value
    assert MEASURES[name](x.numpy().T.copy().T, y) == pytest.approx(value, rel=1e-9)
    assert MEASURES[name](x.float(), y.half()) == pytest.approx(value, abs=0.02)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@every
def test_rotation_and_scale_of_either_side_do_not_matter(name):
    x, y = related()
    if name == "rsa":  # 1 - Pearson of the coordinates is not free of rotations; its cosine form is
        found = [
            rsa(x, y, dissimilarity="cosine"),
            rsa(3 * x @ rotation(6, 9), 0.2 * y @ rotation(5, 8), dissimilarity="cosine"),
        ]
        assert found[0] == pytest.approx(found[1])
        assert rsa(3 * x, 0.2 * y) == pytest.approx(rsa(x, y))
        return
    turn = torch.eye(6, dtype=torch.float64) if name == "pwcca" else rotation(6, 9)  # its weights see the source's axes
    turned = MEASURES[name](3 * x @ turn, 0.2 * y @ rotation(5, 8))
    assert turned == pytest.approx(MEASURES[name](x, y), abs=1e-7 if name != "mutual-knn" else 1e-12)


@pytest.mark.parametrize("name", sorted(set(MEASURES) - {"mutual-knn", "rsa"}))
def test_position_does_not_matter(name):
    x, y = related()
    assert MEASURES[name](x + 100 * rows(6, seed=3), y - 50) == pytest.approx(MEASURES[name](x, y), abs=1e-7)


@pytest.mark.parametrize("name", SYMMETRICAL)
def test_neither_side_comes_first(name):
    x, y = related()
    assert MEASURES[name](x, y) == pytest.approx(MEASURES[name](y, x), abs=1e-9)


@every
def test_the_same_space_is_as_alike_as_can_be(name):
    x, y = related()
    assert MEASURES[name](x, x) == pytest.approx(0 if name in DISTANCES else 1, abs=1e-7)
    assert MEASURES[name](x, 2 * x) == pytest.approx(MEASURES[name](x, x), abs=1e-7)
    assert alike(name, MEASURES[name](x, y)) < alike(name, MEASURES[name](x, x))


@every
def test_order_of_the_pairs_does_not_matter_but_pairing_does(name):
    x, y = related()
    order = torch.randperm(len(x), generator=generator(1))
    value = MEASURES[name](x, y)
    assert MEASURES[name](x[order], y[order]) == pytest.approx(value, abs=1e-9)
    assert alike(name, MEASURES[name](x, y[order])) < alike(name, value)


@every
def test_noise_makes_spaces_less_alike(name):
    x = rows(120, 6)
    values = [alike(name, MEASURES[name](x, x + level * rows(120, 6, seed=2))) for level in (0.1, 0.5, 2.0)]
    assert values == sorted(values, reverse=True)


@every
def test_what_cannot_be_compared_is_refused(name):
    x, y = related()
    with pytest.raises(SutureError, match="80 and 79"):
        MEASURES[name](x, y[:79])
    with pytest.raises(SutureError, match="convert it first"):
        MEASURES[name](x.numpy().astype(int), y)
    if name not in ("mutual-knn",):
        with pytest.raises(SutureError, match=r"differ|variance|equal"):
            MEASURES[name](torch.ones(80, 6), y)


def test_few_rows_are_refused_with_the_number_needed():
    x = rows(3, 2)
    for measure, least in ((debiased_cka, 4), (rbf_cka, 4)):
        with pytest.raises(SutureError, match=f"at least {least} pairs of rows to compare, got 3"):
            measure(x, x)
    with pytest.raises(SutureError, match="at least 3 pairs"):
        rsa(x[:2], x[:2])
    with pytest.raises(SutureError, match="k from 1 to 2 for 3 rows, got 10"):
        mutual_knn(x, x)


# CKA


@given(n=st.integers(5, 30), p=st.integers(1, 8), q=st.integers(1, 8), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_feature_form_is_kernel_form(n, p, q, seed):
    x, y = rows(n, p, seed=seed), rows(n, q, seed=seed + 1) + rows(n, 1, seed=seed)

    def cka(hsic) -> float:
        k, m = x @ x.T, y @ y.T
        return float(hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt())

    assert linear_cka(moments(x, y)) == pytest.approx(cka(plain_hsic), abs=1e-9)
    assert debiased_cka(x, y) == pytest.approx(cka(kernel_hsic), abs=1e-7)


def test_unbiased_hsic_is_the_mean_over_all_tuples_of_different_items():
    k, m = (rows(6, 6, seed=s) for s in (1, 2))
    k, m = k + k.T, m + m.T
    terms = [k[i, j] * m[i, j] + k[i, j] * m[a, b] - 2 * k[i, j] * m[i, a] for i, j, a, b in permutations(range(6), 4)]
    assert float(kernel_hsic(k, m)) == pytest.approx(float(torch.stack(terms).mean()))


def test_debiased_cka_of_noise_is_zero_where_the_plain_one_is_not():
    plain, debiased, rbf = [], [], []
    for seed in range(0, 40, 2):
        x, y = rows(60, 300, seed=seed), rows(60, 300, seed=seed + 1)
        plain.append(linear_cka(moments(x, y)))
        debiased.append(debiased_cka(x, y))
        rbf.append(rbf_cka(x, y))
    assert np.mean(plain) == pytest.approx(0.83, abs=0.02)
    assert abs(np.mean(debiased)) < 0.03
    assert abs(np.mean(rbf)) < 0.03
    assert rbf_cka(x, y, debiased=False) > 0.5


def test_all_forms_of_cka_agree_on_many_rows():
    x, y = related(3000)
    assert debiased_cka(x, y) == pytest.approx(linear_cka(moments(x, y)), abs=0.01)
    x, y = x[:800], y[:800]
    assert rbf_cka(x, y, width=50) == pytest.approx(debiased_cka(x, y), abs=0.01)  # a wide kernel is a linear one
    assert rbf_cka(x, x @ rotation(6) * 3) == pytest.approx(1)
    with pytest.raises(SutureError, match="width above 0"):
        rbf_cka(x, y, width=0)


def test_cka_by_its_definition():
    x, y = related()
    a, b = (t.numpy() - t.numpy().mean(0) for t in (x, y))
    want = np.linalg.norm(a.T @ b) ** 2 / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b)
    assert linear_cka(moments(x, y)) == pytest.approx(want)


# Procrustes


@given(seed=st.integers(0, 999), dims=st.tuples(*[st.integers(1, 5)] * 3), near=st.floats(0, 2))
@settings(max_examples=60, deadline=None)
def test_procrustes_distances_are_metrics(seed, dims, near):
    a = rows(12, dims[0], seed=seed)
    b, c = (rows(12, d, seed=seed + i + 1) + near * a[:, :1] for i, d in enumerate(dims[1:]))
    for distance in (procrustes_distance, angular_distance):
        ab, bc, ac = (distance(moments(*pair)) for pair in ((a, b), (b, c), (a, c)))
        assert ac <= ab + bc + 1e-7
        assert ab == pytest.approx(distance(moments(b, a)))
        assert ab >= 0


def test_procrustes_distance_is_that_at_the_best_rotation():
    x, y = related()
    a, b = x[:, :5] - x[:, :5].mean(0), y - y.mean(0)
    a, b = a / a.norm(), b / b.norm()
    best = float((a @ moments(a, b).rotation - b).norm())
    assert procrustes_distance(moments(x[:, :5], y)) == pytest.approx(best)
    assert all(float((a @ rotation(5, seed) - b).norm()) >= best for seed in range(20))
    m = moments(x, y)
    assert math.cos(angular_distance(m)) == pytest.approx(procrustes_cosine(m))
    assert procrustes_distance(m) == pytest.approx(2 * math.sin(angular_distance(m) / 2))
    assert procrustes_distance(Moments.of(x, y, blocks=("xy", "x", "y"))) == procrustes_distance(m)
    swapped = torch.tensor([[1.0, 0], [-1, 0], [0, 0], [0, 0]]), torch.tensor([[0.0, 0], [0, 0], [1, 0], [-1, 0]])
    assert procrustes_distance(moments(*swapped)) == pytest.approx(2**0.5)
    assert angular_distance(moments(*swapped)) == pytest.approx(math.pi / 2)


# CCA


def test_cca_sees_only_what_no_linear_map_can_change():
    x, y = related(300)
    bent = x @ rows(6, 6, seed=5)
    assert mean_cca(moments(bent, y)) == pytest.approx(mean_cca(moments(x, y)))
    assert pwcca(moments(x, y @ rows(5, 5, seed=5))) == pytest.approx(pwcca(moments(x, y)))
    assert mean_cca(moments(x, bent)) == pytest.approx(1)
    assert linear_cka(moments(x, bent)) < 0.9


def test_cca_by_its_definition():
    x, y = related(200)
    q1, q2 = (torch.linalg.qr(t - t.mean(0)).Q for t in (x, y))
    u, rho, _ = torch.linalg.svd(q1.T @ q2, full_matrices=False)
    assert mean_cca(moments(x, y)) == pytest.approx(float(rho.mean()))
    assert svcca(moments(x, y), variance=1.0) == pytest.approx(float(rho.mean()))
    weight = ((q1 @ u).T @ (x - x.mean(0))).abs().sum(1)
    assert pwcca(moments(x, y)) == pytest.approx(float((weight * rho).sum() / weight.sum()))
    assert mean_cca(moments(x, y), eps=1.0) < mean_cca(moments(x, y))


def test_svcca_leaves_small_components_out():
    x = rows(300, 6) * torch.tensor([9, 9, 9, 0.01, 0.01, 0.01], dtype=torch.float64)
    y = torch.cat([x[:, :3], 0.01 * rows(300, 3, seed=4)], 1)  # alike in what is large
    assert svcca(moments(x, y)) == pytest.approx(1, abs=1e-4)
    assert mean_cca(moments(x, y)) < 0.7


# Neighbours


def test_mutual_neighbours_by_naive_sets():
    x, y = related(40)

    def near(t, i):
        scores = torch.cosine_similarity(t, t[i][None])
        return set([j for j in scores.argsort(descending=True).tolist() if j != i][:7])

    want = np.mean([len(near(x, i) & near(y, i)) / 7 for i in range(40)])
    assert mutual_knn(x, y, k=7) == pytest.approx(want)
    assert mutual_knn(x, y, k=39) == 1


def test_the_null_of_mutual_neighbours_is_k_in_n():
    x, y = related(200)
    null = mutual_knn_null(x, y, k=10, draws=200)
    assert null.value == mutual_knn(x, y)
    assert null.mean == pytest.approx(10 / 199, abs=0.002)
    slow = permutation_null(mutual_knn, x, y, draws=5)
    again = mutual_knn_null(x, y, draws=5)
    torch.testing.assert_close(slow.draws, again.draws)  # renaming neighbours is shuffling rows
    assert null.p_value == pytest.approx(1 / 201)


# RSA


@pytest.mark.parametrize("dissimilarity", ["correlation", "cosine", "euclidean"])
def test_rsa_is_the_correlation_of_distances(dissimilarity):
    x, y = related(50)
    metric = dissimilarity.replace("euclidean", "sqeuclidean")
    scale = 6 if dissimilarity == "euclidean" else 1
    np.testing.assert_allclose(rdm(x, dissimilarity).numpy() * scale, pdist(x.numpy(), metric), atol=1e-10)
    a, b = (pdist(t.numpy(), metric) for t in (x, y))
    assert rsa(x, y, dissimilarity=dissimilarity) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert rsa(x, y, dissimilarity=dissimilarity, compare="pearson") == pytest.approx(stats.pearsonr(a, b).statistic)


def test_rsa_averages_ties_and_refuses_words_it_does_not_know():
    corners = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1], [3, 3]])
    other = torch.tensor([[0.0], [1], [2], [2], [7]])
    want = stats.spearmanr(pdist(corners.numpy()), pdist(other.numpy())).statistic
    assert rsa(corners, other, dissimilarity="euclidean") == pytest.approx(want)
    with pytest.raises(UsageError, match="correlation, cosine, euclidean, got 'manhattan'"):
        rsa(corners, other, dissimilarity="manhattan")
    with pytest.raises(UsageError, match="spearman or pearson, got 'kendall'"):
        rsa(corners, other, dissimilarity="euclidean", compare="kendall")


def test_rsa_of_distances_is_blind_to_position():
    x, y = related()
    moved = rsa(x + 5, y @ rotation(5, 4) * 2 - 3, dissimilarity="euclidean")
    assert moved == pytest.approx(rsa(x, y, dissimilarity="euclidean"))


# The null


def test_the_permutation_null_tells_chance_from_likeness():
    x, y = related(60)
    real = permutation_null(MEASURES["cka"], x, y, draws=50)
    assert real.p_value == pytest.approx(1 / 51)
    assert real.value == MEASURES["cka"](x, y)
    wide = permutation_null(MEASURES["cka"], rows(30, 100, seed=1), rows(30, 100, seed=2), draws=50)
    assert wide.value > 0.7  # which looks like much
    assert wide.value == pytest.approx(wide.mean, abs=0.05)  # and is nothing
    assert wide.p_value > 0.05


def test_p_values_of_independent_spaces_are_uniform():
    found = [
        permutation_null(
            MEASURES["cka"], rows(20, 3, seed=2 * i), rows(20, 3, seed=2 * i + 1), draws=39, seed=i
        ).p_value
        for i in range(60)
    ]
    assert stats.kstest(found, "uniform").pvalue > 1e-3


def test_the_null_is_decided_by_its_seed_alone():
    x, y = related(30)
    state = torch.get_rng_state()
    one = permutation_null(MEASURES["cka"], x, y, draws=5).draws
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(permutation_null(MEASURES["cka"], x, y, draws=5).draws, one)
    assert not torch.equal(permutation_null(MEASURES["cka"], x, y, draws=5, seed=1).draws, one)

"""Exact retrieval against a sort of everything, on data where every product is exact and many rows are equal."""

import math

import numpy as np
import pytest
import torch
from core_examples import generator, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from suture.aligners import SutureError
from suture.aligners.measures import retrieval
from suture.aligners.measures.retrieval import Relevant, overlap, rank_metrics, search


def signs(n: int, dim: int, seed: int) -> torch.Tensor:
    """Rows of +-1 in 4 or 16 dims: of length 2 or 4, so that every cosine is exact, and few of them differ."""
    return torch.randint(0, 2, (n, dim), generator=generator(seed)).float() * 2 - 1


def brute(queries, gallery, exclude=None):
    """All gallery rows of each query, best first, ties by row."""
    q, g = queries.double().numpy(), gallery.double().numpy()
    scores = (q / np.linalg.norm(q, axis=1, keepdims=True)) @ (g / np.linalg.norm(g, axis=1, keepdims=True)).T
    scores = np.round(scores, 9)
    if exclude is not None:
        for i, row in enumerate(exclude.tolist()):
            if row >= 0:
                scores[i, row] = -9
    order = np.argsort(-scores, axis=1, kind="stable")
    return torch.from_numpy(np.where(np.take_along_axis(scores, order, 1) == -9, -1, order))


def ranks_of(order, relevant):
    return torch.tensor([order[q].tolist().index(r) + 1 for q, r in zip(relevant.query, relevant.row, strict=True)])


@given(
    seed=st.integers(0, 999),
    dim=st.sampled_from([4, 16]),
    m=st.integers(1, 9),
    g=st.integers(1, 120),
    k=st.integers(1, 130),
    size=st.integers(1, 130),
    excluded=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_search_is_a_sort_of_everything_with_ties_by_row(seed, dim, m, g, k, size, excluded):
    queries, gallery = signs(m, dim, seed), signs(g, dim, seed + 1)
    exclude = torch.randint(-1, g, (m,), generator=generator(seed)) if excluded else None
    pick = torch.randint(0, m * g, (7,), generator=generator(seed + 2)).unique()
    relevant = Relevant(pick // g, pick % g, gallery[pick % g])
    found = search(queries, torch.split(gallery, size), k=k, relevant=relevant, exclude=exclude)
    assert torch.equal(found.top, brute(queries, gallery, exclude)[:, :k])
    assert found.rank is not None
    assert torch.equal(found.rank, ranks_of(brute(queries, gallery), relevant))
    assert torch.equal(search(queries, gallery, k=k, exclude=exclude).top, found.top)


@pytest.mark.parametrize("copies", [1, 3, 40, 2000])
def test_any_number_of_equal_rows_is_found_in_order(copies):
    gallery = torch.cat([signs(5, 16, 1), signs(5, 16, 2).repeat(copies, 1)])
    order = torch.randperm(len(gallery), generator=generator())
    gallery, queries = gallery[order], signs(20, 16, 3)
    want = brute(queries, gallery)
    for size in (len(gallery), 8192, 97):
        assert torch.equal(search(queries, torch.split(gallery, size), k=10).top, want[:, :10])


def test_many_queries_are_cut_into_parts_that_do_not_show(monkeypatch):
    queries, gallery = signs(60, 16, 1), signs(80, 16, 2)
    relevant = Relevant(torch.arange(60).repeat_interleave(3), torch.arange(180) % 80, gallery[torch.arange(180) % 80])
    exclude = torch.arange(60)
    whole = search(queries, gallery, relevant=relevant, exclude=exclude)
    monkeypatch.setattr(retrieval, "QUERIES", 7)
    parts = search(queries, torch.split(gallery, 33), relevant=relevant, exclude=exclude)
    assert torch.equal(parts.top, whole.top)
    assert torch.equal(parts.rank, whole.rank)
    assert torch.equal(whole.rank, ranks_of(brute(queries, gallery), relevant))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_duplicates_of_real_numbered_rows_tie_whatever_the_rounding(dtype):
    base = rows(300, 64, dtype=dtype)
    gallery, queries = torch.cat([base, base]), rows(50, 64, seed=1, dtype=dtype)
    row = torch.arange(50) * 12 % 600
    relevant = Relevant(torch.arange(50), row, gallery[row])
    for size in (600, 77):
        found = search(queries, torch.split(gallery, size), relevant=relevant)
        assert torch.equal(found.rank, ranks_of(brute(queries, gallery), relevant))
        assert torch.equal(found.top, brute(queries, gallery)[:, :10])


def test_scale_does_not_matter_and_a_zero_row_scores_nothing():
    queries, gallery = rows(10, 8), rows(50, 8, seed=1)
    scaled = gallery * torch.linspace(0.1, 9, 50, dtype=torch.float64)[:, None]
    assert torch.equal(search(queries, scaled).top, search(3 * queries, gallery).top)
    gallery[7] = 0
    scores = torch.cosine_similarity(queries[:, None], gallery[None], dim=2)
    for i, order in enumerate(search(queries, gallery, k=50).top.tolist()):
        assert order.index(7) == int((scores[i] > 0).sum())


def test_no_queries_and_small_galleries():
    none = search(torch.empty(0, 4), signs(3, 4, 1), relevant=Relevant.mates(torch.empty(0, 4)))
    assert none.top.shape == (0, 3)
    assert none.rank.shape == (0,)
    assert search(signs(2, 4, 1), signs(3, 4, 1), k=10).top.shape == (2, 3)
    alone = search(signs(2, 4, 1), signs(1, 4, 1), exclude=torch.tensor([0, -1]))
    assert alone.top.tolist() == [[-1], [0]]


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(SutureError, match="at least one row"):
        search(signs(2, 4, 1), [])
    with pytest.raises(SutureError, match="sorted by query"):
        Relevant(torch.tensor([1, 0]), torch.tensor([0, 0]), torch.ones(2, 4))
    with pytest.raises(SutureError, match=r"\(2, 1, 2\)"):
        Relevant(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(2, 4))


def test_inputs_are_left_alone():
    queries, gallery = rows(5, 8, dtype=torch.float32), rows(9, 8, dtype=torch.float32)
    before = queries.clone(), gallery.clone()
    search(queries, gallery, relevant=Relevant.mates(gallery[:5]), exclude=torch.arange(5))
    assert torch.equal(queries, before[0])
    assert torch.equal(gallery, before[1])


@given(seed=st.integers(0, 999), queries=st.integers(1, 8), g=st.integers(2, 40))
@settings(max_examples=60, deadline=None)
def test_rank_metrics_are_those_of_naive_loops_and_of_sklearn(seed, queries, g):
    random = np.random.default_rng(seed)
    scores = np.stack([random.permutation(g) for _ in range(queries)]).astype(float)
    right = random.random((queries, g)) < random.choice([0.05, 0.5])
    query, row = np.nonzero(right)
    rank = (scores[query] > scores[query, row][:, None]).sum(1) + 1
    found = rank_metrics(torch.from_numpy(rank), torch.from_numpy(query), queries)
    assert list(found) == ["ndcg@10", "recall@1", "recall@5", "recall@10", "mrr"]
    for i in range(queries):
        mine = {name: float(values[i]) for name, values in found.items()}
        own = sorted(rank[query == i])
        if not own:
            assert all(math.isnan(value) for value in mine.values())
            continue
        assert mine["ndcg@10"] == pytest.approx(ndcg_score(right[i : i + 1], scores[i : i + 1], k=10))
        assert mine["mrr"] == pytest.approx(1 / own[0])
        for k in (1, 5, 10):
            assert mine[f"recall@{k}"] == pytest.approx(sum(r <= k for r in own) / len(own))


def test_overlap_is_symmetrical_and_counts_each_row_once():
    a = torch.stack([torch.randperm(30, generator=generator(i))[:10] for i in range(20)])
    b = torch.stack([torch.randperm(30, generator=generator(i + 99))[:10] for i in range(20)])
    want = torch.tensor([len(set(p) & set(q)) / 10 for p, q in zip(a.tolist(), b.tolist(), strict=True)])
    torch.testing.assert_close(overlap(a, b), want.double())
    assert torch.equal(overlap(a, b), overlap(b, a))
    assert torch.equal(overlap(a, a.flip(1)), torch.ones(20, dtype=torch.float64))
    assert overlap(torch.tensor([[1, -1]]), torch.tensor([[1, -1]])).tolist() == [1.0]
    assert overlap(torch.tensor([[2, -1]]), torch.tensor([[1, -1]])).tolist() == [0.0]

"""The query vector of `dual`, trained on labelled queries: no query is answered by what it helped to train."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ...aligners.nonlinear.training import train
from .choice import FOLDS, folds_of
from .inputs import Inputs
from .scan import Advance
from .systems import Systems

__all__ = ["TRAINING_STEPS", "Tuned", "tune", "untaught"]

ENOUGH = 500  # labelled queries; 250 made it no better, 1,000 closed a third more of the gap (minilm -> mpnet)
POOL, DRAWN, JUDGED = 16_384, 2_000, 4_000  # gallery rows to draw from, drawn a step, and that early stopping judges by
STEPS, BATCH, RATE, PATIENCE = 200, 256, 5e-4, 5
TRAINING_STEPS = (FOLDS + 1) * STEPS  # of `tune`
TEMPERATURE = 0.5  # of scores that spread by about 1


@dataclass(frozen=True, eq=False)
class Tuned:
    """``weight`` ``(p + q, p)``: both unit queries side by side times it are the vector that the old index is asked by.

    ``crossed`` ``(m, p)``: these vectors, of unit length, each by a weight trained without the query's fold.
    """

    weight: Tensor
    crossed: Tensor

    def serving(self, both: Tensor) -> Tuned:
        """The same weight for other queries ``(m, p + q)``."""
        return replace(self, crossed=normalize(both @ self.weight, dim=1))


def untaught(systems: Systems, seed: int) -> str | None:
    """Why there is nothing to `tune`, if so: `Systems` offers no `dual`, or labels are few or hang together."""
    if systems.both is None:
        return systems.missing["dual-tuned"]
    query = systems.inputs.query
    if query is None or len(torch.unique(query)) < ENOUGH:
        return f"needs at least {ENOUGH} labelled queries to be trained on (--relevant)"
    asking = torch.unique(query)
    mine = together(systems.inputs)
    sizes = torch.bincount(torch.unique(mine[asking], return_inverse=True)[1])
    if len(sizes) < FOLDS or 2 * int(sizes.max()) > len(asking):
        return (
            f"needs labelled queries in {FOLDS} parts or more that share no answer and no group, none over "
            f"half of the queries: there are {len(sizes)}, the largest with {int(sizes.max())} of {len(asking)}"
        )
    if len(torch.unique(folds(systems.inputs, seed)[asking])) < FOLDS:
        return f"needs labelled queries in each of {FOLDS} folds"
    return None


def tune(systems: Systems, *, seed: int, advance: Advance) -> Tuned:
    """Train it, once without each fold and once on all, where `untaught` has nothing against it.

    ``v = [q_old, q_new] ([I / s1; W' / s2] / 2 + D)``, D = 0 at first, which is `dual` at a half. Minimised is the
    cross entropy of each right answer against gallery rows drawn anew and the others' right answers (sampled softmax,
    as InfoNCE; van den Oord et al. 2018), by Adam, as long as it falls on a fold that is not trained on: what is given
    back is never worse there than the start. Queries that share an answer or a group, also through others, are in one
    fold. So new queries that are after the same rows as the labelled ones do better than ``crossed`` says: in worlds of
    400 rows, where 500 queries share their answers with the others, it came out .7 standard errors too low; where
    every query is after a row of its own, it does not (benchmarks/results/intervals.md).
    """
    inputs = systems.inputs
    assert systems.both is not None
    fold = folds(inputs, seed)
    task = Task.of(systems, inputs, seed)
    crossed = torch.empty((len(fold), inputs.gallery.dim))
    for k in range(FOLDS):
        weight = task.trained((fold != k) & (fold != (k + 1) % FOLDS), fold == (k + 1) % FOLDS, advance)
        crossed[fold == k] = normalize(systems.both[fold == k] @ weight, dim=1)
    return Tuned(task.trained(fold != 0, fold == 0, advance), crossed)


def folds(inputs: Inputs, seed: int) -> Tensor:
    """The fold ``(m,)`` of each query: no answer and no group is in two."""
    return folds_of(replace(inputs.queries, groups=together(inputs)), seed)


def together(inputs: Inputs) -> Tensor:
    """The connected component ``(m,)`` of each query in the graph of queries, right answers and groups."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    assert inputs.query is not None
    assert inputs.row is not None
    m = len(inputs.queries.new)
    ends = [(inputs.query, torch.unique(inputs.row, return_inverse=True)[1])]
    if inputs.queries.groups is not None:
        ends.append((torch.arange(m), torch.unique(inputs.queries.groups, return_inverse=True)[1]))
    size, edges = m, []
    for query, other in ends:
        edges.append(torch.stack([query, other + size]))
        size += int(other.max()) + 1
    one, two = torch.cat(edges, dim=1).numpy()
    found = connected_components(coo_matrix((np.ones(len(one), bool), (one, two)), (size, size)), directed=False)[1]
    return torch.from_numpy(found[:m].astype(np.int64))


@dataclass(frozen=True, eq=False)
class Task:
    """``both`` ``(m, p + q)``: queries by the ``scale`` of each dimension; times ``start`` they are those of `dual`.

    Example i: query ``query[i]`` is answered by ``right[i]`` ``(p,)``, gallery row ``row[i]``. ``others`` ``(n, p)``:
    the gallery rows ``number``. ``answers`` ``(m, a)``: the rows that are no wrong answers of each query, -1 for none.
    """

    both: Tensor
    scale: Tensor
    start: Tensor
    query: Tensor
    row: Tensor
    right: Tensor
    others: Tensor
    number: Tensor
    answers: Tensor
    seed: int

    @classmethod
    def of(cls, systems: Systems, inputs: Inputs, seed: int) -> Task:
        """That of all labelled queries."""
        assert systems.both is not None
        assert systems.old is not None
        assert systems.turned is not None
        assert inputs.query is not None
        assert inputs.row is not None
        count, p = inputs.gallery.count, inputs.gallery.dim
        number = torch.unique(torch.linspace(0, count - 1, min(count, POOL)).long())
        # New queries in the old space, of length 1 on average: then a step counts alike for both encoders.
        length = float(systems.turned.queries.norm(dim=1).mean())
        shares = [0.5 / systems.spread(systems.old).deviation, 0.5 * length / systems.spread(systems.turned).deviation]
        scale = torch.tensor(shares).repeat_interleave(torch.tensor([p, len(systems.turn)]))
        counts = torch.bincount(inputs.query, minlength=len(systems.both))
        place = torch.arange(len(inputs.query)) - (counts.cumsum(0) - counts)[inputs.query]
        answers = torch.full((len(counts), int(counts.max()) + 1), -1)
        answers[inputs.query, place] = inputs.row
        if inputs.queries.exclude is not None:
            answers[:, -1] = inputs.queries.exclude
        return cls(
            systems.both * scale,
            scale,
            torch.cat([torch.eye(p), systems.turn / length]),
            inputs.query,
            inputs.row,
            normalize(inputs.gallery.rows(inputs.row), dim=1),
            normalize(inputs.gallery.rows(number), dim=1),
            number,
            answers,
            seed,
        )

    def trained(self, mine: Tensor, judges: Tensor, advance: Advance) -> Tensor:
        """The weight by queries ``mine`` ``(m,)`` that did best for the ``judges``."""
        step = torch.zeros_like(self.start)
        examples, held = mine[self.query].nonzero()[:, 0], judges[self.query].nonzero()[:, 0]
        generator = torch.Generator().manual_seed(self.seed)
        fixed = torch.randperm(len(self.others), generator=generator)[:JUDGED]
        done = 0

        def tell(now: int, steps: int) -> None:
            nonlocal done
            del steps
            advance(now - done)
            done = now

        train(
            [step],
            lambda some: self.loss(step, examples[some], self.drawn(generator)),
            lambda: torch.stack([self.loss(step, part, fixed) * len(part) for part in torch.split(held, BATCH)]).sum(),
            len(examples),
            steps=STEPS,
            batch=BATCH,
            rate=RATE,
            patience=PATIENCE,
            seed=self.seed,
            progress=tell,
        )
        advance(STEPS - done)
        return self.scale[:, None] * (self.start + step)

    def drawn(self, generator: torch.Generator) -> Tensor:
        """Places of gallery rows to tell right answers from."""
        return torch.randint(len(self.others), (min(DRAWN, len(self.others)),), generator=generator)

    def loss(self, step: Tensor, examples: Tensor, others: Tensor) -> Tensor:
        """The mean cross entropy of some examples against each other's answers and ``others``."""
        query = self.query[examples]
        vectors = self.both[query] @ (self.start + step)
        scores = vectors @ torch.cat([self.right[examples], self.others[others]]).T / TEMPERATURE
        rows = torch.cat([self.row[examples], self.number[others]])
        place = torch.arange(len(examples))
        right_too = torch.zeros(scores.shape, dtype=torch.bool)
        for answer in self.answers[query].T:
            right_too |= rows == answer[:, None]
        right_too[place, place] = False
        return cross_entropy(scores.masked_fill(right_too, -torch.inf), place)

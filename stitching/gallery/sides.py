"""Whether all that was given is of the encoder that it was given for."""

from __future__ import annotations

from torch import Tensor

from ...aligners.errors import RefusedError
from ...aligners.recognise import require_side
from .inputs import Inputs
from .maps import Maps

__all__ = ["require_sides"]

SEEN = 1000  # pool rows that are looked at


def require_sides(inputs: Inputs, maps: Maps, *, familiar: bool) -> None:
    """Refuse a gallery, queries or a pool that cannot be of the spaces that the pairs are from."""
    queries, gallery = inputs.queries, inputs.gallery
    given = [("source", next(gallery.blocks()), gallery.name), ("target", queries.new, "the new queries")]
    if queries.old is not None:
        given.append(("source", queries.old, "the old queries"))
    if inputs.pool is not None:
        known = (inputs.pool.weight > 0).nonzero()[:SEEN, 0]
        given.append(("target", inputs.pool.rows(known), "the pool"))
    for side, rows, what in given:
        try:
            require_side(maps.alignment, side, rows, what, behaviour=familiar)
        except RefusedError as error:
            other = "target" if side == "source" else "source"
            if not belongs(maps, other, rows, familiar=familiar):
                raise RefusedError(f"{error} Here source is the old encoder, target the new one.") from error
            old, new = ("old", "new") if side == "source" else ("new", "old")
            raise RefusedError(
                f"{what}: expected rows of the {old} encoder, as in --{old}-pairs, these are like the rows of "
                f"--{new}-pairs. --old-gallery, --old-pairs and --old-queries are of one encoder, --new-pairs, "
                "--new-queries and --pool of the other: exchange what is the wrong way round."
            ) from error


def belongs(maps: Maps, side: str, rows: Tensor, *, familiar: bool) -> bool:
    """Whether these can be rows of that side."""
    try:
        require_side(maps.alignment, side, rows, "", behaviour=familiar)
    except RefusedError:
        return False
    return True

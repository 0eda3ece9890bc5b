"""Recognising a space: rows that do not belong to it are refused before they are mapped to plausible nonsense."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .alignment import Alignment, Space
from .arrays import row_norms
from .errors import RefusedError
from .survey import all_unit, familiarity

__all__ = ["familiar_share", "require_joint", "require_side", "require_space"]

SEEN = 1000
# Other rows of the same encoder reach .5 to 1 of the familiarity at fit time (other texts, other lengths, queries);
# rows of another encoder of that width, rotated or permuted rows reach 0 to .25.
FAMILIAR = 0.35
TELLING = 0.05


def require_side(alignment: Alignment, side: str, rows: Tensor, what: str, *, behaviour: bool = True) -> None:
    """Refuse ``rows`` ``(m, dim)``, called ``what`` in messages, unless they can be rows of the space ``side``.

    Width and norm policy are always checked; ``behaviour`` adds the comparison with the canaries. Raises
    `RefusedError` with both facts.
    """
    require_width({name: alignment.map_of(name).source_dim for name in alignment.sides}, side, rows.shape[1], what)
    if side in alignment.spaces:
        require_space(alignment.spaces, side, rows, what, behaviour=behaviour)


def require_space(spaces: Mapping[str, Space], side: str, rows: Tensor, what: str, *, behaviour: bool = True) -> None:
    """`require_side` for spaces of which there is no alignment yet."""
    require_width({name: space.dim for name, space in spaces.items()}, side, rows.shape[1], what)
    require_norms(spaces[side], side, rows, what)
    if behaviour:
        require_familiar(spaces, side, rows, what)


def require_width(dims: Mapping[str, int], side: str, came: int, what: str) -> None:
    """Refuse rows of another width than the space ``side`` has in ``dims``."""
    if came == dims[side]:
        return
    fitting = [name for name, dim in dims.items() if dim == came]
    hint = f" They have the width of the {fitting[0]} side: is it the wrong way round?" if fitting else ""
    raise RefusedError(f"{what}: expected {side} rows of {dims[side]} dims, these have {came}.{hint}")


def require_joint(first: Alignment, second: Alignment, what: str, *, behaviour: bool = True) -> None:
    """Refuse to join two alignments, called ``what``, unless the first ends in the space that the second starts from.

    Width is always checked; ``behaviour`` asks whether the first's target rows look like the second's source rows.
    """
    ends, starts = first.map_of("target").source_dim, second.map_of("source").source_dim
    if ends != starts:
        raise RefusedError(
            f"{what}: the first map ends in {ends} dims and the second starts from {starts}; these are not the same "
            "space. Is the order right?"
        )
    space = first.spaces.get("target")
    if behaviour and space is not None and space.canaries is not None and "source" in second.spaces:
        share = familiar_share(second.spaces["source"], space.canaries)
        if share is not None and share < FAMILIAR:
            raise RefusedError(
                f"{what}: the space in which the first map ends does not look like the one from which the second "
                f"starts (familiarity {share:.2f}; 1 for the same space, 0 for shuffled coordinates). Is the order "
                "right? If you are sure, skip this check (--unfamiliar)."
            )


def require_norms(space: Space, side: str, rows: Tensor, what: str) -> None:
    """Refuse rows of another norm policy than those that the map was fitted on."""
    if all_unit(rows) == space.unit:
        return
    norms = row_norms(rows)
    came = f"norms from {float(norms.min()):.3g} to {float(norms.max()):.3g}"
    if space.unit:
        raise RefusedError(
            f"{what}: this map was fitted on {side} rows of unit length, these have {came}. Normalise them to length "
            "1 first, or fit the map on rows like these."
        )
    raise RefusedError(
        f"{what}: this map was fitted on {side} rows of varying length, these all have unit length. Give the rows as "
        "the encoder made them, or fit the map on rows like these."
    )


def require_familiar(spaces: Mapping[str, Space], side: str, rows: Tensor, what: str) -> None:
    """Refuse rows that behave like those of another space."""
    share = familiar_share(spaces[side], rows)
    if share is None or share >= FAMILIAR:
        return
    for name, other in spaces.items():
        theirs = familiar_share(other, rows) if name != side else None
        if theirs is not None and theirs > max(share, FAMILIAR):
            raise RefusedError(
                f"{what}: expected {side} rows, but these look like rows of the {name} space (familiarity "
                f"{theirs:.2f} there, {share:.2f} here, 1 at fit time). Give them as the {name} side, or invert the "
                "map."
            )
    raise RefusedError(
        f"{what}: these do not look like rows of the {side} space that the map was fitted on (familiarity "
        f"{share:.2f}; 1 at fit time, 0 for shuffled coordinates). Is this another encoder, or another version of it? "
        "If you are sure, skip this check (--unfamiliar)."
    )


def familiar_share(space: Space, rows: Tensor) -> float | None:
    """How familiar ``rows`` ``(m, dim)`` are: 1 as at fit time, 0 as with shuffled coordinates; None if untold.

    It cannot be told without canaries, or where the space looks the same with its coordinates shuffled.
    """
    if space.familiarity is None:
        return None
    step = max(1, len(rows) // SEEN)
    seen = familiarity(space, rows[::step][:SEEN])
    expected, chance = space.familiarity
    if seen is None or expected - chance < TELLING:
        return None
    return (seen[0] - seen[1]) / (expected - chance)

"""Writes docs/methods.md from the registry: `python benchmarks/methods_doc.py`."""

from dataclasses import fields
from pathlib import Path

from suture.aligners import ALIGNERS

import results

HEAD = """# Methods

Made from the registry by `python benchmarks/methods_doc.py`; the docstring of each class has its equation and its
source. An affine method folds into a linear layer and composes with other affine maps; the others are put into a model
whole (`module()`), and their other direction is fitted, not inverted."""


def main() -> None:
    """Write the table."""
    rows = [
        [
            f"`{name}`",
            kind.summary,
            kind.needs,
            "yes" if kind.affine else "no",
            ", ".join(f"`{f.name}={f.default}`" for f in fields(kind)) or "-",
            kind.paper,
        ]
        for name, kind in ALIGNERS.items()
    ]
    table = results.markdown(("method", "what it does", "needs", "affine", "parameters", "source"), rows)
    path = Path(__file__).parents[1] / "docs" / "methods.md"
    path.write_text(f"{HEAD}\n\n{table.replace('| ---:', '| ---')}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

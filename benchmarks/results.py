"""Tables and figures of benchmarks, with the command and the machine that made them."""

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "results"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in markdown, first column to the left."""
    rule = ["---", *("---:" for _ in columns[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, rule, *rows))


def write(name: str, *sections: str) -> None:
    """Write `results/NAME.md`: what was run, on what, and the sections."""
    command = f"python benchmarks/run.py {' '.join(sys.argv[1:])}".strip()
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}"
    )
    FOLDER.mkdir(exist_ok=True)
    text = "\n\n".join((f"# {name}", f"Made by `{command}` on {machine}.", *sections)) + "\n"
    (FOLDER / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)

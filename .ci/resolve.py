"""Ask pip whether the dependencies resolve on every Python that suture names, without running any of them.

    .venv/bin/python .ci/resolve.py

Three questions for each version: do the pins of constraints.txt have wheels there (`.[dev]`, a contributor), do the
open ranges (`.[all]`, a user who installs today), and has the pinned torch a wheel? pip resolves for the foreign
version from the registry's metadata and downloads next to nothing. torch is asked for alone, without its dependencies,
because some of its builds depend on gigabytes of CUDA packages.
A limit of pip: markers (`; python_version < "3.12"`) are read for the running Python.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
PINNED = ["--constraint", "constraints.txt"]


def requirements(project: dict, extra: str) -> list[str]:
    """What `suture[extra]` asks for, with `suture[...]` inside an extra spelt out, and without torch."""
    found, pending = list(project["dependencies"]), [extra]
    while pending:
        for requirement in project["optional-dependencies"][pending.pop()]:
            inner = re.fullmatch(r"suture\[(.+)\]", requirement)
            pending.extend(inner[1].split(",")) if inner else found.append(requirement)
    return sorted({r for r in found if re.match(r"[\w.-]+", r)[0] != "torch"})


def resolves(python: str, wanted: list[str], *more: str) -> bool:
    """Whether pip finds wheels for all of `wanted`; its own error message goes to stderr."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--quiet"]
    command += ["--only-binary=:all:", "--python-version", python, "--target", "build/never-written", *more, *wanted]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def main() -> int:
    """Print one line a question; the exit code."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    failed = 0
    for python in PYTHONS:
        for title, wanted, more in (
            ("[dev] at the pins of constraints.txt", requirements(project, "dev"), PINNED),
            ("[all] in its open ranges", requirements(project, "all"), []),
            ("torch at its pin", ["torch"], [*PINNED, "--no-deps"]),
        ):
            ok = resolves(python, wanted, *more)
            failed += not ok
            print(f"Python {python}, {title}: {'resolves' if ok else 'DOES NOT RESOLVE'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

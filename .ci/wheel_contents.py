"""Compare a wheel with the checkout: every module and data file of the package, and nothing else.

    python .ci/wheel_contents.py dist/*.whl

A sub-package that pyproject.toml forgets is absent from the wheel without a word, and a stale build/lib adds modules
that were deleted; both show only on a user's machine.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("aligners/", "stitching/", "cli/")


def expected() -> set[str]:
    """The files of the package in the checkout, under the names that the wheel gives them."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    tracked = [name for name in listing.stdout.split("\0") if name]
    modules = {n for n in tracked if n in {"__init__.py", "py.typed"} or (n.startswith(ROOMS) and n.endswith(".py"))}
    return {f"suture/{name}" for name in modules | {n for n in tracked if n.startswith("cli/demo/")}}


def main(wheel: Path) -> int:
    """Print what differs; the exit code."""
    names = set(zipfile.ZipFile(wheel).namelist())
    packaged = {name for name in names if ".dist-info/" not in name}
    wanted = expected()
    for name in sorted(wanted - packaged):
        print(f"missing from the wheel: {name} (is its folder in `packages` of pyproject.toml?)")
    for name in sorted(packaged - wanted):
        print(f"in the wheel, but not in the checkout's package: {name} (stale build/? a file not in git?)")
    licences = {name.rsplit("/", 1)[1] for name in names if ".dist-info/licenses/" in name}
    for name in sorted({"LICENSE", "NOTICE"} - licences):
        print(f"missing from the wheel's licences: {name} (see `license-files` in pyproject.toml)")
    faithful = packaged == wanted and {"LICENSE", "NOTICE"} <= licences
    print(f"{wheel.name}: {len(packaged)} files, {'as in the checkout' if faithful else 'NOT as in the checkout'}")
    return 0 if faithful else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(
            f"expected one wheel, got {len(sys.argv) - 1}: {' '.join(sys.argv[1:])}. Run `make dist` first"
        )
    raise SystemExit(main(Path(sys.argv[1])))

"""What the README and the guides show is run here, in order, in one folder; what comes out must be what they print."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/stitching.md")
BLOCK = re.compile(r"```(console|python|output)\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"-?\d*\.\d+|-?\d+")


def shell(block: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output shown under it."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def assert_alike(came: str, shown: str) -> None:
    """The same words in the same order, and numbers alike; seconds may differ."""
    came, shown = (re.sub(r"in \d+\.\d s", "in N s", " ".join(text.split())) for text in (came, shown))
    assert NUMBER.sub("#", came) == NUMBER.sub("#", shown)
    for a, b in zip(NUMBER.findall(came), NUMBER.findall(shown), strict=True):
        assert float(a) == pytest.approx(float(b), abs=0.011), f"{a} came, the page shows {b}"


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_are_true(page: str, tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    suture = str(Path(sys.executable).parent / "suture")
    printed = ""
    kinds = [kind for kind, _ in blocks]
    assert {"console", "python", "output"} <= set(kinds)
    for kind, text in blocks:
        if kind == "console":
            for command, shown in shell(text):
                words = shlex.split(command)
                assert words[0] == "suture"
                assert_alike(run([suture, *words[1:]], tmp_path), shown)
        elif kind == "python":
            printed = run([sys.executable, "-W", "error", "-c", text], tmp_path)
        else:
            assert_alike(printed, text)

"""The report in a real browser, from a file, with the network cut off."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from gallery_worlds import World

Suture = Callable[..., Any]
NASTY = "</script><script>document.title='owned'</script> <b>bold</b> & \"quotes\""


@dataclass
class Page:
    path: Path
    result: dict[str, Any]

    @property
    def html(self) -> str:
        return self.path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, suture: Suture) -> Page:
    folder = tmp_path_factory.mktemp("report")
    world = World(folder, count=1200, queries=150)
    (folder / "queries.jsonl").write_text("".join(json.dumps({"text": f"{NASTY} {i}"}) + "\n" for i in range(150)))
    (folder / "gallery.jsonl").write_text("".join(json.dumps({"text": f"{NASTY} {i}"}) + "\n" for i in range(1200)))
    words = [*world.words(), "--report", folder / "out.html", "--gate", "retention>=.5"]
    words += ["--query-texts", folder / "queries.jsonl", "--gallery-texts", folder / "gallery.jsonl", "--json"]
    return Page(folder / "out.html", suture(*words))


def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None and os.environ.get("SUTURE_NEEDS_BROWSER"):
        pytest.fail("expected a Chromium, `.ci/run` installs one")
    if found is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    return found


def browse(page: Page, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open the page as a file, every host name unknown."""
    command = [chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [
        f"--user-data-dir={folder / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
    ]
    command += ["--window-size=1100,4200", "--virtual-time-budget=8000", *options, page.path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def test_a_browser_draws_every_figure_without_a_network(page: Page, tmp_path: Path) -> None:
    done = browse(page, tmp_path, "--dump-dom")
    dom = done.stdout
    assert len(re.findall(r'<div class="[^"]*\bsvg-container"', dom)) == 4
    assert len(re.findall(r'class="trace scatter', dom)) >= 12
    assert page.result["conclusion"].replace(">", "&gt;") in dom
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    assert title[1].startswith("Gallery estimate:")  # not 'owned'


def test_a_browser_shows_more_than_white(page: Page, tmp_path: Path) -> None:
    from struct import unpack

    shot = tmp_path / "shot.png"
    browse(page, tmp_path, f"--screenshot={shot}")
    data = shot.read_bytes()
    assert unpack(">II", data[16:24]) == (1100, 4200)
    assert len(data) > 100_000  # a white page of this size takes 20 kB


class Links(HTMLParser):
    """Everything that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "action")]


def test_nothing_is_fetched_and_nothing_breaks_out(page: Page) -> None:
    links = Links()
    links.feed(page.html)
    assert links.fetched == ["data:,"]
    assert "<b>bold</b>" not in page.html
    assert "&lt;b&gt;bold&lt;/b&gt;" in page.html


def test_the_verdict_comes_first_in_words(page: Page) -> None:
    text = re.sub(r"<style.*?</style>|<script.*?</script>|<[^>]+>", " ", page.html, flags=re.DOTALL)
    order = ["Gallery estimate:", "Cost of", "Gates", "Every strategy", "Beside staying", "With more rows"]
    order += ["Re-embedding a part", "Worst slices", "Score thresholds", "Three queries", "How this was made"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_a_report_is_not_written_over(page: Page, suture: Suture, tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / "out.html").write_text("mine")
    assert "exists" in suture(*world.words(), "--report", tmp_path / "out.html", code=3)
    assert ".html" in suture(*world.words(), "--report", tmp_path / "out.pdf", code=2)
    assert (tmp_path / "out.html").read_text() == "mine"

"""Fusing bound spaces: weights find the expert, a router finds it row by row, and the file keeps it."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from suture.aligners import Bind, RefusedError, UsageError, load, save_alignment
from suture.aligners.multiway.fusion import grouped, margin, simplex_grid
from suture.cli.main import app

N, D = 900, 12


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turn(seed: int) -> Tensor:
    return torch.linalg.qr(normal(D, D, seed=seed))[0]


def experts(noise: tuple[Tensor | float, Tensor | float]) -> dict[str, Tensor]:
    """A base and an expert that both know text and image; ``noise`` of the images of each."""
    item = normal(N, D)
    spaces = {"text": item, "image": item + noise[0] * normal(N, D, seed=1) + 1}
    spaces["text2"] = (item + 0.05 * normal(N, D, seed=2)) @ turn(5) + 2
    spaces["image2"] = (item + noise[1] * normal(N, D, seed=3)) @ turn(5) - 1
    return spaces


def bound(spaces: dict[str, Tensor], **options: str) -> Bind:
    return Bind(same="image=text,image2=text2", fuse="T=text+text2,I=image+image2", **options)  # type: ignore[arg-type]


def test_fixed_weights_go_to_the_better_expert_and_beat_it() -> None:
    spaces = experts((2.0, 0.7))
    found = bound(spaces).fit_spaces(spaces).provenance["fusion"]
    assert found["weights"]["I"]["image2"] > 0.6
    assert sum(found["weights"]["I"].values()) == pytest.approx(1, abs=1e-3)
    for way in found["recall@1"].values():
        assert way["fused"] >= way["equal"] - 0.03
    assert found["retention"]["image2 -> text2"]["fused"] > found["retention"]["image2 -> text2"]["own"] - 0.1
    assert found["retention"]["image -> text"]["fused"] > found["retention"]["image -> text"]["own"] + 0.2


def test_a_router_asks_each_row() -> None:
    """Either expert knows the images of one half of a topic and is loud about the other: the topic tells which."""
    topic = 3 * normal(3 * N, 1, seed=9).sign()
    item = torch.cat([topic, normal(3 * N, D - 1)], 1)
    spaces = {"text": item, "text2": (item + 0.05 * normal(3 * N, D, seed=2)) @ turn(5) + 2}
    for name, side, seed in (("image", 1, 3), ("image2", -1, 4)):
        noise = torch.cat([torch.zeros(3 * N, 1), 2.0 * normal(3 * N, D - 1, seed=seed)], 1)
        rows = item + torch.where(topic * side > 0, 0.1, 1.0) * noise
        spaces[name] = rows + 1 if name == "image" else rows @ turn(5) - 1
    fixed, routed = (
        bound(spaces, weights=weights).fit_spaces(spaces).provenance["fusion"]["recall@1"]
        for weights in ("fixed", "routed")
    )
    assert routed["I -> T"]["fused"] > fixed["I -> T"]["fused"] + 0.05
    assert fixed["I -> T"]["fused"] > fixed["I -> T"]["single"] + 0.05


@pytest.mark.parametrize("weights", ["fixed", "routed"])
def test_the_map_is_its_formula_and_survives_the_file(weights: str, tmp_path: Path) -> None:
    spaces = experts((1.0, 0.7))
    alignment = bound(spaces, weights=weights).fit_spaces(spaces)
    fused = alignment.map_of("I")
    rows = torch.cat([spaces["image"], spaces["image2"]], 1)[:20]
    centre = spaces["text"].mean(0)
    u = torch.stack(
        [
            torch.nn.functional.normalize(alignment.map_of(name)(spaces[name][:20]) - centre, dim=1)
            for name in ("image", "image2")
        ],
        1,
    )
    gates = fused.gates(u)  # type: ignore[attr-defined]
    torch.testing.assert_close(gates.sum(1), torch.ones(20, dtype=torch.float64))
    expected = torch.nn.functional.normalize((gates[..., None] * u).sum(1), dim=1)
    length = (spaces["text"] - centre).square().sum(1).mean().sqrt()
    torch.testing.assert_close(fused(rows), centre + length * expected, atol=1e-4, rtol=0)
    save_alignment(alignment, tmp_path / "m.safetensors")
    assert torch.equal(load(tmp_path / "m.safetensors").map_of("I")(rows), fused(rows))
    back = alignment.translate("I", "text2")(rows)
    assert float((torch.cdist(back, spaces["text2"][:20]).argmin(1) == torch.arange(20)).double().mean()) > 0.5


def test_the_grid_and_the_margin() -> None:
    for k, count in ((1, 1), (2, 11), (3, 66), (4, 56)):
        grid = simplex_grid(k)
        assert len(grid) == len(set(grid)) == count
        assert all(sum(w) == pytest.approx(1) for w in grid)
        assert max(grid[0]) - min(grid[0]) <= 0.2 + 1e-9  # the most even first
    rows, mates = normal(6, 3), normal(6, 3, seed=1)
    brute = [float(rows[i] @ mates[i] - max(rows[i] @ mates[j] for j in range(6) if j != i)) for i in range(6)]
    torch.testing.assert_close(margin(rows, mates), torch.tensor(brute, dtype=torch.float64))


def test_what_cannot_be_fused_is_refused() -> None:
    spaces = experts((1.0, 1.0))
    for text in ("T=text", "T=text+sound,I=image", "T=text,T=image", "text=text,I=image", "T=text+text,I=image", "T"):
        with pytest.raises(UsageError, match="fuse"):
            grouped(text, [*spaces])
    with pytest.raises(RefusedError, match="held-out items"):
        bound(spaces).fit_spaces({name: rows[:200] for name, rows in spaces.items()})
    with pytest.raises(UsageError, match="weights"):
        bound(spaces, weights="soft")


def test_fused_in_the_terminal(tmp_path: Path) -> None:
    spaces = experts((1.0, 0.7))
    for name, rows in spaces.items():
        np.save(tmp_path / f"{name}.npy", rows.numpy().astype(np.float32))

    def run(*words: object, code: int = 0) -> str:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == code, done.output
        return done.stdout if code == 0 else done.stderr

    dumps, out = [tmp_path / f"{name}.npy" for name in spaces], tmp_path / "m.safetensors"
    options = [("same", "image=text,image2=text2"), ("fuse", "T=text+text2,I=image+image2")]
    words = list(itertools.chain.from_iterable(("--set", f"{key}={value}") for key, value in options))
    fit = ("fit", *dumps, "--method", "bind", *words, "-o", out)
    found = json.loads(run(*fit, "--json"))["fusion"]
    assert set(found) == {"spaces", "weights", "recall@1", "retention", "items"}
    assert "best single space" in run(*fit, "--overwrite")
    sides = {"T": ("text", "text2"), "I": ("image", "image2")}
    for side, names in sides.items():
        run("apply", out, *(tmp_path / f"{n}.npy" for n in names), "--side", side, "-o", tmp_path / f"{side}.npy")
    t, i = np.load(tmp_path / "T.npy"), np.load(tmp_path / "I.npy")
    assert t.shape == i.shape == (N, D)
    np.save(tmp_path / "few.npy", np.zeros((3, D), np.float32))
    said = run("apply", out, dumps[0], tmp_path / "few.npy", "--side", "T", "-o", tmp_path / "x.npy", code=3)
    assert "same items side by side" in said

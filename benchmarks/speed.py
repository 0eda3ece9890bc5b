"""How near fit and apply come to the limit: the bare float32 multiply of the same shapes, timed in the same run.

All contestants take turns, round after round, so that a noisy machine is noisy for all of them. Ours read float16 .npy
files and write one; the bare multiply, scipy and scikit-learn find float32 arrays in memory. Peak memory is what the
kernel counts for a process of its own that does nothing else.
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from suture.aligners import ALIGNERS, Alignment, Survey
from suture.stitching.apply import apply
from suture.stitching.dumps import BadRows, open_dump, pair
from suture.stitching.stream import PairedDumps

import results

DIM = 768
METHODS = ("procrustes", "ridge", "cca")
# Bytes for each number of one dump, beside the two float32 arrays: scipy marks what is finite, Ridge centres copies,
# and RidgeCV works in float64 on copies, left singular vectors and the errors of all rows.
NEEDS = {
    "scipy orthogonal_procrustes": 2,
    "scikit-learn Ridge (one alpha)": 12,
    "scikit-learn RidgeCV (5 alphas)": 64,
}


def make(folder: Path, rows: int) -> None:
    """Two float16 dumps that a rotation and noise relate, written block by block."""
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(DIM, DIM, generator=generator)).Q
    files = [
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, (rows, DIM))
        for name in ("source", "target")
    ]
    for start in range(0, rows, 8192):
        x = torch.randn(min(8192, rows - start), DIM, generator=generator)
        y = x @ rotation + 0.5 * torch.randn(x.shape, generator=generator)
        files[0][start : start + len(x)], files[1][start : start + len(x)] = x.half().numpy(), y.half().numpy()
    for file in files:
        file.flush()


def fit(folder: Path, method: str) -> Alignment:
    """Fit one method from the two files, sample and canaries included."""
    aligner = ALIGNERS[method]()
    stream = PairedDumps(pair(open_dump(folder / "source.npy"), open_dump(folder / "target.npy")))
    return aligner.fit_survey(Survey.of(stream, blocks=aligner.blocks))


def apply_to(folder: Path, alignment: Alignment) -> None:
    """Map the source file into another file."""
    apply(alignment, open_dump(folder / "source.npy"), folder / "out.npy", bad_rows=BadRows())


def contestants(folder: Path, rows: int) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """What takes turns, name to what is timed; and what does not fit in memory, with the reason."""
    x = torch.from_numpy(np.load(folder / "source.npy")).float()
    y = torch.from_numpy(np.load(folder / "target.npy")).float()
    alignment = fit(folder, "procrustes")
    weight = torch.randn(DIM, DIM)
    found: dict[str, Callable[[], object]] = {
        "bare X'Y": lambda: x.T @ y,
        "bare XW": lambda: x @ weight,
        **{f"fit {method}": (lambda m: lambda: fit(folder, m))(method) for method in METHODS},
        "apply": lambda: apply_to(folder, alignment),
    }
    import scipy.linalg
    from sklearn.linear_model import Ridge, RidgeCV

    xn, yn = x.numpy(), y.numpy()
    others: dict[str, Callable[[], object]] = {
        "scipy orthogonal_procrustes": lambda: scipy.linalg.orthogonal_procrustes(xn, yn),
        "scikit-learn Ridge (one alpha)": lambda: Ridge(alpha=1.0).fit(xn, yn),
        "scikit-learn RidgeCV (5 alphas)": lambda: RidgeCV(alphas=np.logspace(-3, 5, 5)).fit(xn, yn),
    }
    free = free_memory()
    left_out = {}
    for name, each in others.items():
        needed = NEEDS[name] * rows * DIM
        if needed > 0.8 * free:
            left_out[name] = f"not run: takes about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        else:
            found[name] = each
    return found, left_out


def free_memory() -> int:
    """Bytes that can still be had: what the kernel counts as available, or less where this control group has less."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


# The multiplies that a method cannot do without, in units of X'Y.
LIMIT = {
    "fit procrustes": ("bare X'Y", 1),
    "fit ridge": ("bare X'Y", 2),
    "fit cca": ("bare X'Y", 3),
    "apply": ("bare XW", 1),
}


def timed(work: dict[str, Callable[[], object]], rounds: int, out: Path) -> dict[str, list[float]]:
    """Seconds of each, round after round, in turn; the first round warms up and is not counted.

    ``out`` is removed before each, as freeing what an earlier round wrote is no part of writing.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, each in work.items():
            out.unlink(missing_ok=True)
            start = perf_counter()
            each()
            if turn:
                seconds[name].append(perf_counter() - start)
    return seconds


def peak(folder: Path, what: str) -> float:
    """Peak resident memory, in MB, of a process that only does ``what``."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import speed;"
        "from pathlib import Path;"
        f"folder = Path({str(folder)!r}); from suture.aligners import load;"
        # Not getrusage: its peak of a child starts at what the parent held when it was made.
        f"{what}; print(int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def measure(rows: int, rounds: int) -> tuple[list[list[str]], dict[str, float]]:
    """The rows of the table for one size, and the ratios to the limit."""
    from suture.aligners import save_alignment

    table, ratios = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, rows)
        save_alignment(fit(folder, "procrustes"), folder / "map.safetensors")
        memory = {f"fit {m}": peak(folder, f"speed.fit(folder, '{m}')") for m in METHODS}
        memory["apply"] = peak(folder, "speed.apply_to(folder, load(folder / 'map.safetensors'))")
        work, left_out = contestants(folder, rows)
        seconds = timed(work, rounds, folder / "out.npy")
    for case, times in seconds.items():
        ratio = "-"
        if case in LIMIT:
            limit, times_it = LIMIT[case]
            of_limit = [t / (times_it * b) for t, b in zip(times, seconds[limit], strict=True)]
            ratios[case] = statistics.median(of_limit)
            ratio = f"{ratios[case]:.2f} ({min(of_limit):.2f} to {max(of_limit):.2f})"
        mb = f"{memory[case]:.0f}" if case in memory else "-"
        table.append([f"{rows:,} x {DIM}: {case}", f"{statistics.median(times):.2f}", ratio, mb])
    table += [[f"{rows:,} x {DIM}: {case}", reason, "-", "-"] for case, reason in left_out.items()]
    return table, ratios


def run(data: Path | None, *, quick: bool) -> None:
    """Measure both sizes and write the table and its figure."""
    del data
    sizes = {4_000: 2} if quick else {20_000: 3, 400_000: 3}
    rows: list[list[str]] = []
    ratios: dict[int, dict[str, float]] = {}
    for size, rounds in sizes.items():
        table, ratios[size] = measure(size, rounds)
        rows += table
    columns = ("case", "seconds (median)", "times the multiplies it needs: median (range)", "peak MB")
    note = (
        "Ours read float16 files and, for apply, write one (flushed to the disk); start-up is not counted. A fit "
        "includes the checks of rows, the held-out sample and the canaries. The limit is one bare multiply X'Y for "
        "Procrustes, two for ridge (X'X too), three for CCA, and XW for apply. scipy and scikit-learn have their "
        "arrays in memory already, and run where what they need beside these is at most 80 % of the free memory."
    )
    figure(ratios)
    results.write("speed", note, results.markdown(columns, rows), "![ratio to the bare multiply](speed.png)")


def figure(ratios: dict[int, dict[str, float]]) -> None:
    """Bars: ratio to the limit, a colour a size."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    fig, ax = plt.subplots(figsize=(7, 3))
    width = 0.8 / len(ratios)
    for i, (size, values) in enumerate(ratios.items()):
        ax.bar([j + i * width for j in range(len(values))], list(values.values()), width, label=f"{size:,} rows")
    names = list(next(iter(ratios.values())))
    ax.set_xticks([j + width * (len(ratios) - 1) / 2 for j in range(len(names))], names)
    ax.axhline(1, color="black", linewidth=0.8)
    ax.set_yscale("log")  # CCA of few rows is its eigenproblem, twenty times its multiplies
    ax.set_yticks([1, 1.5, 2, 5, 10, 20], ["1", "1.5", "2", "5", "10", "20"])
    ax.minorticks_off()
    ax.set_ylabel("time / bare multiplies needed")
    ax.legend()
    fig.tight_layout()
    results.FOLDER.mkdir(exist_ok=True)
    fig.savefig(results.FOLDER / "speed.png", dpi=120)
    plt.close(fig)

"""All benchmarks, or those named: `python benchmarks/run.py [CASE ...] [--data DIR] [--quick]`.

The names are those of the modules beside this file. Each writes `benchmarks/results/NAME.md`, a table with the command
that made it, and figures beside it.
"""

import argparse
from pathlib import Path

import far_pairs

import checks
import distillation
import emoji
import estimates
import intervals
import kills
import quality
import seeds
import speed
import upgrade
from stitching.run import run as stitching

CASES = {
    "speed": speed.run,
    "quality": quality.run,
    "seeds": seeds.run,
    "far_pairs": far_pairs.run,
    "stitching": stitching,
    "intervals": intervals.run,
    "upgrade": upgrade.run,
    "kills": kills.run,
    "distillation": distillation.run,
    "emoji": emoji.run,
    "estimates": estimates.run,
    "checks": checks.run,
}
NEEDS_DATA = {"quality", "seeds", "far_pairs", "distillation", "emoji", "estimates"}


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"any of {', '.join(CASES)}; all by default")
    parser.add_argument("--data", type=Path, help="folder of sets of dumps, as described in benchmarks/quality.py")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    arguments = parser.parse_args()
    for name in arguments.cases or CASES:
        if arguments.data is None and name in NEEDS_DATA:
            print(f"{name}: left out, it needs real dumps: --data DIR (make bench DATA=DIR)")
            continue
        CASES[name](arguments.data, quick=arguments.quick)


if __name__ == "__main__":
    main()

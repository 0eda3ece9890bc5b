"""Make the data of `suture demo`: a small, fixed selection of the WordNet dumps, written to cli/demo/.

    python benchmarks/demo_data.py --data DIR/wordnet

`DIR/wordnet` holds fit.jsonl, gallery.jsonl, query.jsonl and query_target.npy, and one folder an encoder with fit.npy,
gallery.npy and query.npy. The same input gives the same bytes. Every query's one right answer is in the packaged
gallery; the other gallery rows are drawn at random from all of them, hard distractors included.
The licences of texts and encoders are in NOTICE.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np

ENCODERS = ("minilm-l6", "mpnet-base")
FIT, GALLERY, QUERIES = 1_200, 1_500, 300
SEED = 20_240
MAX_BYTES = 8_000_000
HOME = Path(__file__).resolve().parent.parent / "cli" / "demo"

# The demo prints its texts: leave out what WordNet itself marks as a slur, vulgar and so on (about 2 rows in 1,000).
UNFIT = re.compile(r"slur|offensive|obscen|derogat|disparag|vulgar", re.IGNORECASE)

Record = dict[str, str]


def read_records(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def is_fit(record: Record) -> bool:
    return not UNFIT.search(record["text"])


def draw(rng: np.random.Generator, fit: list[bool], count: int, keep: np.ndarray | None = None) -> np.ndarray:
    """Sorted row numbers: `keep`, filled up to `count` with random rows where `fit` is true."""
    keep = np.empty(0, dtype=np.int64) if keep is None else keep
    rest = np.setdiff1d(np.flatnonzero(fit), keep)
    return np.sort(np.concatenate([keep, rng.choice(rest, count - len(keep), replace=False)]))


def write_split(out: Path, data: Path, split: str, rows: np.ndarray, ids: list[str], texts: list[str] | None) -> None:
    for encoder in ENCODERS:
        vectors = np.load(data / encoder / f"{split}.npy", mmap_mode="r")
        np.save(out / f"{split}.{encoder}.npy", np.ascontiguousarray(vectors[rows], dtype=np.float16))
    np.save(out / f"{split}.ids.npy", np.array(ids))
    if texts is not None:
        lines = [json.dumps({"id": i, "text": t}, ensure_ascii=False) + "\n" for i, t in zip(ids, texts, strict=True)]
        (out / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def make(data: Path, out: Path) -> int:
    """Write the demo files from `data` to `out`; the number of bytes written."""
    rng = np.random.default_rng(SEED)
    records = {split: read_records(data / f"{split}.jsonl") for split in ("fit", "gallery", "query")}
    target = np.load(data / "query_target.npy")

    fit = {split: [is_fit(record) for record in records[split]] for split in records}
    # A query is printed next to its answer: both must be fit.
    fit["query"] = [ok and fit["gallery"][row] for ok, row in zip(fit["query"], target, strict=True)]
    rows = {split: draw(rng, fit[split], count) for split, count in (("query", QUERIES), ("fit", FIT))}
    rows["gallery"] = draw(rng, fit["gallery"], GALLERY, keep=np.unique(target[rows["query"]]))

    chosen = {split: [records[split][row] for row in rows[split]] for split in rows}
    ids = {split: [record["id"] for record in chosen[split]] for split in rows}
    if shared := set(ids["fit"]) & set(ids["gallery"]):
        raise SystemExit(f"fit and gallery must share no id, {len(shared)} are shared, {min(shared)} among them")
    # A usage example bears the id of its synset: "q" keeps a query from pairing with its own answer by id.
    ids["query"] = ["q" + i for i in ids["query"]]

    out.mkdir(parents=True, exist_ok=True)
    for split in rows:
        texts = None if split == "fit" else [record["text"] for record in chosen[split]]
        write_split(out, data, split, rows[split], ids[split], texts)
    packaged_target = np.searchsorted(rows["gallery"], target[rows["query"]])
    if not np.array_equal(rows["gallery"][packaged_target], target[rows["query"]]):
        raise SystemExit("a query lost its right answer: the packaged gallery must hold every target row")
    np.save(out / "query_target.npy", packaged_target.astype(np.int32))

    size = sum(path.stat().st_size for path in out.iterdir() if path.suffix in {".npy", ".jsonl"})
    if size > MAX_BYTES:
        raise SystemExit(f"the demo data may have {MAX_BYTES:,} bytes, it has {size:,}: draw fewer rows")
    return size


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder of the WordNet dumps")
    parser.add_argument("--out", type=Path, default=HOME, metavar="DIR", help="default: cli/demo of this checkout")
    arguments = parser.parse_args()
    print(f"{make(arguments.data, arguments.out):,} bytes in {arguments.out}")

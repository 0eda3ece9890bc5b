"""The file formats, one family a file."""

from collections.abc import Callable

from ..dump import Dump
from .arrow import ParquetSink, open_arrow, open_parquet
from .delimited import open_delimited
from .folder import open_folder
from .hdf5 import H5Sink, open_h5, open_h5ad
from .jsonl import JsonlSink, open_jsonl
from .npy import NpySink, open_npy
from .npz import open_npz
from .pt import open_pt
from .request import Request
from .safetensors import SafetensorsSink, open_safetensors
from .sinks import Sink
from .vecs import BINS, VECS, FvecsSink, open_bin, open_vecs
from .word2vec import open_word2vec

__all__ = ["READERS", "SINKS", "Request", "open_folder"]

READERS: dict[str, Callable[[Request], Dump]] = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".safetensors": open_safetensors,
    ".parquet": open_parquet,
    ".arrow": open_arrow,
    ".feather": open_arrow,
    ".h5": open_h5,
    ".hdf5": open_h5,
    ".h5ad": open_h5ad,
    **dict.fromkeys(VECS, open_vecs),
    **dict.fromkeys(BINS, open_bin),
    ".csv": open_delimited,
    ".tsv": open_delimited,
    ".vec": open_word2vec,
    ".txt": open_word2vec,
    ".jsonl": open_jsonl,
    ".jsonl.gz": open_jsonl,
    ".pt": open_pt,
    ".pth": open_pt,
}

SINKS: dict[str, type[Sink]] = {
    ".npy": NpySink,
    ".safetensors": SafetensorsSink,
    ".parquet": ParquetSink,
    ".h5": H5Sink,
    ".fvecs": FvecsSink,
    ".jsonl": JsonlSink,
}

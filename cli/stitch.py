"""`suture stitch`, `suture fold` and `suture export`: a map in front of a decoder, inside it, or on its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .options import Json, Overwrite, check_output

__all__ = ["export", "fold", "stitch"]

MapFile = Annotated[Path, typer.Argument(metavar="MAP", help="A map file: new encoder -> what the decoder knows.")]
Scaling = Annotated[
    Literal["auto", "l2", "none"],
    typer.Option(help="Unit rows: before and after the map where the fit had them (auto), after it (l2), or not."),
]
Into = Annotated[
    str, typer.Option(help="Space that the decoder knows: target, or shared for decoders of relative rows.")
]


def stitch(
    encoder: Annotated[Path, typer.Argument(metavar="ENCODER", help="The new encoder (.onnx or .pt2).")],
    map_file: MapFile,
    decoder: Annotated[Path, typer.Argument(metavar="DECODER", help="The old decoder or head, of the same kind.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model to write, of the same kind.")],
    encoder_output: Annotated[str | None, typer.Option(help="Output of the encoder to map.")] = None,
    decoder_input: Annotated[str | None, typer.Option(help="Input of the decoder that takes it.")] = None,
    pool: Annotated[
        Literal["none", "mean", "first"], typer.Option(help="Token vectors to one: their mean, or the first.")
    ] = "none",
    mask: Annotated[str, typer.Option(help="Input that is 0 for padding, for --pool mean.")] = "attention_mask",
    normalize: Scaling = "auto",
    into: Into = "target",
    probe: Annotated[Path | None, typer.Option(help="Inputs to check with (.npz); by default generated.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Join new encoder, map and old decoder to one model, and run it against the three.

    All ONNX models, or all torch programs (`torch.export`, .pt2), of which nothing is unpickled.
    """
    from ..aligners import load
    from ..aligners.errors import UsageError
    from ..stitching.models.onnxstitch import stitch_onnx
    from ..stitching.models.parts import read_probe
    from ..stitching.models.programstitch import stitch_programs
    from .output import print_json, say

    require_suffix(out, ".onnx", ".pt2")
    if {encoder.suffix, decoder.suffix} != {out.suffix}:
        raise UsageError(
            f"expected encoder, decoder and --out of one kind, all .onnx or all .pt2, got {encoder.suffix or 'none'}, "
            f"{decoder.suffix or 'none'} and {out.suffix}; torch.onnx.export makes an .onnx of a torch model."
        )
    if out.suffix == ".pt2" and decoder_input is not None:
        raise UsageError("--decoder-input is for .onnx models; a torch program behind a map takes one input.")
    check_output(out, encoder, map_file, decoder, probe, overwrite=overwrite)
    join = stitch_programs if out.suffix == ".pt2" else partial(stitch_onnx, input_=decoder_input)
    done = join(
        encoder,
        load(map_file),
        decoder,
        out,
        output=encoder_output,
        pool=pool,
        mask=mask,
        normalize=normalize,
        into=into,
        probe=None if probe is None else read_probe(probe),
        overwrite=overwrite,
    )
    if json:
        print_json(done)
        return
    for side in ("inputs", "outputs"):
        say(f"{side}: {', '.join(port_text(each) for each in done[side])}")
    opset = "" if done["opset"] is None else f", opset {done['opset']}"
    say(f"Differs from its parts by {done['difference']:.1e} on {done['probe_rows']} rows{opset}.")
    say(f"-> {done['path']}", style="bold")


def port_text(value: dict[str, Any]) -> str:
    """An input or output in words."""
    shape = "?" if value["shape"] is None else ", ".join("?" if d is None else str(d) for d in value["shape"])
    return f"{value['name']} {value['type']} ({shape})"


def require_suffix(path: Path, *suffixes: str) -> None:
    """Refuse an output file of another kind."""
    from ..aligners.errors import UsageError

    if path.suffix not in suffixes:
        raise UsageError(f"--out: expected a file with {' or '.join(suffixes)}, got {path}.")


def fold(
    map_file: MapFile,
    head: Annotated[Path, typer.Argument(metavar="HEAD", help="weight (classes, q), bias (classes,), or .onnx.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new head, a file of the same kind.")],
    head_input: Annotated[str | None, typer.Option(help="Input of an ONNX head that takes the vectors.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Fold an affine map into the first layer of HEAD: the new head takes the new encoder's rows, at no cost."""
    from ..aligners import load
    from ..stitching.models.foldfile import fold_file
    from .output import print_json, say

    require_suffix(head, ".safetensors", ".onnx")
    require_suffix(out, head.suffix)
    check_output(out, map_file, head, overwrite=overwrite)
    done = fold_file(load(map_file), head, out, input_=head_input, overwrite=overwrite)
    if json:
        print_json(done)
        return
    equal = "1e-5" if done["difference"] <= 1e-5 else f"{done['difference']:.0e} (half precision)"
    widths = f"The head took {done['head_dim']} dims, the folded one takes {done['folded_dim']}"
    say(f"{widths}; equal on a probe to {equal}.")
    if done["target_had_unit_rows"]:
        say("It was trained on unit rows; mapped rows are not scaled in it. `suture evaluate-head` shows both.")
    say(f"-> {out}", style="bold")


def export(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="A map file made by suture.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .onnx, .pt2 (torch.export) or .npz.")],
    side: Annotated[str, typer.Option(help="Whose rows it is to take.")] = "source",
    into: Annotated[str | None, typer.Option(help="Space to end in; by default the other side's, or shared.")] = None,
    normalize: Scaling = "auto",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a map for programs without suture; what is written is run against the map first."""
    from ..aligners import load
    from ..stitching.models.export import export as export_map
    from .output import print_json, say

    check_output(out, map_file, overwrite=overwrite)
    done = export_map(load(map_file), out, side=side, into=into, normalize=normalize, overwrite=overwrite)
    if json:
        print_json(done)
        return
    dims = f"{done['source_dim']} -> {done['target_dim']} dims"
    say(f"{done['kind']} map of {dims}, equal to the map on a probe to 1e-4.")
    say(f"-> {done['path']}", style="bold")

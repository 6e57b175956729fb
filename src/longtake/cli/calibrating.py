"""The verb that fits a method to a target: calibrate."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longtake.cli.terminal import AsJson, Model, bar, parse_size, quiet

if TYPE_CHECKING:
    from longtake.methods.profiles import Tried


def calibrate(
    method: Annotated[
        str, typer.Option(help="One method; settings written here are held: taylorseer:granularity=block.")
    ] = "taylorseer",
    target: Annotated[
        list[str] | None,
        typer.Option(help="psnr>=30, ssim>=0.9, latent<=0.1, speedup>=2 or macs<=0.5; several joined by commas."),
    ] = None,
    model: Model = "starter",
    knobs: Annotated[
        list[str] | None,
        typer.Option("--knob", help="Values to search, from careful to bold: interval=2/3/4 (repeatable)."),
    ] = None,
    prompts: Annotated[
        str, typer.Option(help="To calibrate on: a number, for captions of scenes; or a .txt, .jsonl or .json file.")
    ] = "4",
    held_out: Annotated[
        str | None, typer.Option(help="To check on: likewise; of a file of prompts a number holds out the last ones.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the profile goes, a .json file.")] = Path("profile.json"),
    cache: Annotated[
        Path | None, typer.Option(help="Folder of clips and times, to go on from. Default: beside the profile.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of each prompt.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the first clip; each further one has the next.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Sampling steps; default: the model's (starter: 30).")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Strength of guidance; 1 is none; default: the model's (starter: 4).")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of a clip; default: as trained.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT; default: as trained.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="euler, heun, unipc, dpm++ ...; default: the model's.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search a method's settings for a target, check it on held-out prompts, and write a profile for --with."""
    height, width = (None, None) if size is None else parse_size(size)
    quiet()
    from longtake.calibration import calibrate
    from longtake.calibration.telling import lines, missed, tried_line
    from longtake.errors import MissedTarget

    def told(tried: "Tried") -> None:
        if not as_json:
            print(tried_line(tried), flush=True)

    with bar("steps", 1) as advance:
        profile = calibrate(
            model,
            method,
            target or [],
            knobs=knobs or (),
            prompts=prompts,
            held_out=held_out,
            out=out,
            cache=cache,
            seeds=seeds,
            seed=seed,
            steps=steps,
            guidance=guidance,
            frames=frames,
            height=height,
            width=width,
            scheduler=scheduler,
            dtype=dtype,
            device=device,
            command=shlex.join(["longtake", *sys.argv[1:]]),
            on_step=advance,
            on_tried=told,
        )
    if as_json:
        print(profile.to_json(), end="")
    else:
        print("\n".join(lines(profile)))
    if not profile.met:
        raise MissedTarget(missed(profile))

"""The verbs that measure: evaluate and compare."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from longtake.cli.terminal import AsJson, Model, bar, parse_size, print_json, quiet, say


def evaluate(
    real: Annotated[
        str | None, typer.Option(help="What to compare with: a folder or table of videos, or rendered scenes.")
    ] = None,
    fake: Annotated[str | None, typer.Option(help="The generated clips, likewise.")] = None,
    model: Annotated[str | None, typer.Option(help="In place of --fake: make clips with it.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="With --model: .txt, .jsonl or .json; default: the prompts of --real.")
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="fvd,fid,psnr ...; all: what can be measured with what is given.")
    ] = "all",
    protocol: Annotated[str, typer.Option(help="ours, latte-ucf101, tats, stylegan-v ... or a file.")] = "ours",
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="One switch of it: real.stride=3, size=64 ... (repeatable).")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="scenes-3d, random-3d, FILE of I3D, NAME=FILE; default: the protocol's.")
    ] = None,
    frame_network: Annotated[
        str | None, typer.Option(help="scenes-2d, random-2d, FILE of Inception, NAME=FILE; default: the protocol's.")
    ] = None,
    clip: Annotated[Path | None, typer.Option(help="Folder of a CLIP, for the text score.")] = None,
    seam: Annotated[
        list[int] | None, typer.Option(help="First frame of a piece that long clips were joined from (repeatable).")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for result.json, result.html, features, clips.")] = Path(
        "evaluation"
    ),
    cache: Annotated[Path | None, typer.Option(help="Folder of features, may be shared. Default: in --out.")] = None,
    batch: Annotated[int, typer.Option(help="Clips at a time.")] = 8,
    workers: Annotated[int, typer.Option(help="Processes that decode; 0: none besides this one.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")] = "cpu",
    seed: Annotated[int, typer.Option(help="With --model: clip i is drawn from seed + i.")] = 0,
    frames: Annotated[int, typer.Option(help="With --model: frames of a clip.")] = 17,
    size: Annotated[str, typer.Option(help="With --model: WIDTHxHEIGHT of a clip.")] = "64x64",
    steps: Annotated[int, typer.Option(help="With --model: sampling steps.")] = 30,
    guidance: Annotated[float, typer.Option(help="With --model: strength of guidance.")] = 4.0,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap behind the intervals.")] = 200,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two result.json: set them side by side, measure nothing.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare results of different protocols.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure generated clips; write a record, a page, and how it was measured."""
    from rich.console import Console

    from longtake.evaluation.report import comparison_table, result_lines, result_table

    console = Console(width=None if sys.stdout.isatty() else 140)
    if compare is not None:
        from longtake.evaluation.results import compare as set_side_by_side
        from longtake.evaluation.results import read_result

        pair = set_side_by_side(*map(read_result, compare), force=force)
        for difference in pair.differences:
            say(f"not measured in one way: {difference}")
        if as_json:
            print_json(dataclasses.asdict(pair))
        else:
            console.print(comparison_table(pair, (str(compare[0]), str(compare[1]))))
        return
    height, width = parse_size(size)
    quiet()
    from longtake.evaluation.evaluating import evaluate
    from longtake.evaluation.generated import Sampling

    with bar("clips", 1) as advance:
        done = evaluate(
            real=real,
            fake=fake,
            model=model,
            prompts=prompts,
            metrics=metrics,
            protocol=protocol,
            changes=changes or [],
            network=network,
            frame_network=frame_network,
            clip=clip,
            seams=seam or [],
            out=out,
            cache=cache,
            batch=batch,
            workers=workers,
            device=device,
            sampling=Sampling(frames, height, width, steps, guidance, seed=seed),
            resamples=resamples,
            command=sys.argv[1:],
            on_clips=lambda _, clips, all: advance(clips, all),
        )
    if as_json and done.first:
        print(done.result.to_json(), end="")
    elif done.first:
        console.print(result_table(done.result))
        print("\n".join([*result_lines(done.result), f"{done.record}, {done.page}"]))


def compare(
    stacks: Annotated[
        list[str] | None,
        typer.Option(
            "--stack", help="Methods of a row, taylorseer:interval=4+cfg-interval, or a profile, FILE.json; repeatable."
        ),
    ] = None,
    model: Model = "starter",
    prompts: Annotated[
        str, typer.Option(help="A number, for captions of held-out scenes; or a .txt, .jsonl or .json file.")
    ] = "4",
    seeds: Annotated[int, typer.Option(help="Seeds of each prompt.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for index.html, report.json, clips.")] = Path("report"),
    steps: Annotated[int | None, typer.Option(help="Sampling steps; default: the model's (starter: 30).")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Strength of guidance; 1 is none; default: the model's (starter: 4).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first clip; each further one has the next.")] = 0,
    frames: Annotated[int | None, typer.Option(help="Frames of a clip; default: as trained.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT; default: as trained.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    shown: Annotated[int, typer.Option(help="Prompts whose clips are on the page.")] = 12,
    allow_inert: Annotated[bool, typer.Option("--allow-inert", help="Only note that a method does nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a model dense and with stacks of methods, on the same prompts and seeds; write a table and a page."""
    height, width = (None, None) if size is None else parse_size(size)
    quiet()
    from rich.console import Console

    from longtake.comparison import compare
    from longtake.comparison.table import lines, table

    with bar("steps", 1) as advance:
        report = compare(
            model,
            stacks or [],
            prompts=prompts,
            out=out,
            seeds=seeds,
            seed=seed,
            steps=steps,
            guidance=guidance,
            frames=frames,
            height=height,
            width=width,
            dtype=dtype,
            device=device,
            allow_inert=allow_inert,
            shown=shown,
            command=shlex.join(["longtake", *sys.argv[1:]]),
            on_step=advance,
        )
    if as_json:
        print(report.to_json(), end="")
        return
    Console(width=None if sys.stdout.isatty() else 180).print(table(report))
    print("\n".join([*lines(report), f"{out / 'report.json'}, {out / 'index.html'}"]))

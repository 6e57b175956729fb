"""The command line: one function per verb. What a verb does is in the module that it calls."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from longtake.cli.calibrating import calibrate
from longtake.cli.listing import systems
from longtake.cli.measuring import compare, evaluate
from longtake.cli.terminal import AsJson, Model, bar, parse_size, print_json, quiet, say, stop, summary
from longtake.errors import BadData, BadInput, LongtakeError, UnknownName, nearest

app = typer.Typer(
    help="Video diffusion transformers: generate, train, measure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Render scenes with ground truth; check folders of videos.", no_args_is_help=True)
app.add_typer(data_app, name="data")

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it; the parser turns the interrupt into it."""


@app.command()
def generate(
    prompt: Annotated[str | None, typer.Argument(help="What happens in the clip.", show_default=False)] = None,
    model: Model = "starter",
    out: Annotated[
        Path | None, typer.Option(help="Where to; the record goes beside it. Default: clip.mp4.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Clip i of --count is drawn from seed + i.")] = 0,
    frames: Annotated[int | None, typer.Option(help="Frames of the clip; default: as trained (starter: 17).")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT; default: as trained (starter: 64x64).")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps; default: the model's (starter: 30).")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Strength of guidance; 1 is none; default: the model's (starter: 4).")
    ] = None,
    guidance_2: Annotated[
        float | None, typer.Option("--guidance-2", help="Of the second network of Wan 2.2; default: the same.")
    ] = None,
    negative: Annotated[str, typer.Option(help="What to stay away from.")] = "",
    image: Annotated[Path | None, typer.Option(help="Picture that is the first frame.")] = None,
    last_image: Annotated[Path | None, typer.Option(help="Picture that is the last frame.")] = None,
    continue_from: Annotated[Path | None, typer.Option(help="Video whose last frames the clip goes on from.")] = None,
    audio: Annotated[Path | None, typer.Option(help="Sound that the clip is made to, and carries.")] = None,
    count: Annotated[int, typer.Option(help="Number of clips; above 1 they are numbered.")] = 1,
    scheduler: Annotated[str | None, typer.Option(help="euler, heun, unipc, dpm++ ...; default: the model's.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--with", help="Method, as taylorseer:interval=5,order=1; joined by + or repeated; or a profile, FILE.json."
        ),
    ] = None,
    allow_inert: Annotated[
        bool, typer.Option("--allow-inert", help="Only warn of a method that does nothing.")
    ] = False,
    from_record: Annotated[Path | None, typer.Option(help="Make the clip of this record again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make clips from a prompt, and a record of each that makes it again."""
    prompt = "" if prompt is None and audio is not None else prompt  # what hears sound takes no words
    if (prompt is None) == (from_record is None):
        raise BadInput("generate takes a prompt, or --from-record with the .json of a clip: give one of the two")
    height, width = (None, None) if size is None else parse_size(size)
    quiet()
    from longtake.methods import as_methods, as_stack
    from longtake.pipelines.generating import generate, regenerate
    from longtake.pipelines.records import read_record

    stack = as_stack(methods or [])
    with bar("sampling", count * (steps or 1)) as advance:
        if from_record is not None:
            applied = as_methods(read_record(from_record).settings.methods)
            again = regenerate(from_record, out=out, methods=applied, on_step=lambda _, done, all: advance(done, all))
            made = [again]
        else:
            made = generate(
                prompt or "",
                model=model,
                out=out or "clip.mp4",
                negative_prompt=negative,
                frames=frames,
                height=height,
                width=width,
                steps=steps,
                guidance=guidance,
                guidance_2=guidance_2,
                seed=seed,
                image=image,
                last_image=last_image,
                continue_from=continue_from,
                audio=audio,
                count=count,
                scheduler=scheduler,
                dtype=dtype,
                device=device,
                methods=stack.methods,
                terms=stack.terms,
                allow_inert=allow_inert,
                on_step=lambda clip, done, all: advance(clip * all + done, count * all),
            )
    for one in made:
        for warning in one.record.warnings:
            say(f"{one.path}: {warning}")
    if as_json:
        print_json([{"path": str(one.path), "record": dataclasses.asdict(one.record)} for one in made])
        return
    for one in made:
        s, t = one.record.settings, one.record.seconds
        print(
            f"{one.path}  {s.frames} frames {s.width}x{s.height}, seed {s.seed}, "
            f"{t.text + t.denoise + t.decode:.1f} s (text {t.text:.2f}, denoise {t.denoise:.2f}, decode {t.decode:.2f})"
        )
        for receipt in one.record.receipts:
            print(f"  {summary(receipt)}")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, with dots: data.root=DIR.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
) -> None:
    """Train what a recipe says."""
    quiet()
    from longtake.training import train

    for result in train(recipe, overrides or [], resume=resume):
        held_out = ", ".join(
            f"{name} {value:.4g} -> {result.after[name]:.4g}"
            for name, value in result.before.items()
            if name in result.after
        )
        print(f"{result.out}  {result.stopped} at step {result.step} after {result.seconds:.0f} s  {held_out}".rstrip())
        if result.export is not None:
            print(f"{result.export}  exported")


@data_app.command("render")
def data_render(
    out: Annotated[Path, typer.Option(help="Folder for the files; made if missing, gone on with if begun.")],
    count: Annotated[int, typer.Option(help="Number of clips.")] = 16,
    seed: Annotated[int, typer.Option(help="Clip i is the scene of seed + i.")] = 0,
    frames: Annotated[int, typer.Option(help="Frames of a clip.")] = 17,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels.")] = "64x64",
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 8.0,
    split: Annotated[str, typer.Option(help="train, held-out (combinations that train never shows) or all.")] = "train",
    everything: Annotated[
        bool, typer.Option("--everything", help="Draw figures, capsules and all colours and textures too.")
    ] = False,
    dense: Annotated[bool, typer.Option("--dense", help="Also masks, depth, normals and flow, as .npz.")] = False,
    sound: Annotated[bool, typer.Option("--sound", help="Give each video the sound of its scene.")] = False,
) -> None:
    """Render scenes to videos, each with its ground truth as JSON."""
    height, width = parse_size(size)
    from longtake.data.scenes import SceneOptions, render_folder

    table = render_folder(
        out,
        count,
        SceneOptions.everything(split) if everything else SceneOptions(split=split),
        first_seed=seed,
        frames=frames,
        height=height,
        width=width,
        fps=fps,
        dense=dense,
        sound=sound,
        progress=sys.stdout.isatty(),
    )
    print(f"{out}  {count} clips of {frames} frames {width}x{height}, listed in {table.name}")


@data_app.command("check")
def data_check(
    root: Annotated[Path, typer.Argument(help="Folder of videos, or a table of them.")],
    preset: Annotated[str, typer.Option(help="How clips are cut and resized: ours, ucf101 ...")] = "ours",
    frames: Annotated[int | None, typer.Option(help="Frames of a clip; default: the preset's.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of a clip; default: the preset's.")] = None,
    fps: Annotated[float | None, typer.Option(help="Resample to this rate first.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every frame of every video.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what would be trained on, and what is wrong with the rest."""
    height, width = (None, None) if size is None else parse_size(size)
    from longtake.data.check import check, format_report
    from longtake.data.presets import FolderOptions

    options = FolderOptions(preset=preset, frames=frames, height=height, width=width, fps=fps)
    report = check(root, options, deep=deep, progress=sys.stdout.isatty() and not as_json)
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        print(format_report(report))
    if not report.videos:
        raise BadData(f"{root} holds nothing to train on: all {len(report.problems)} videos have a problem")


@app.command()
def reconstruct(
    file: Annotated[Path, typer.Argument(help="Any video.")],
    model: Model = "starter",
    out: Annotated[Path | None, typer.Option(help="Write the decoded video here.")] = None,
    frames: Annotated[int | None, typer.Option(help="At most so many frames from the start.")] = None,
    size: Annotated[str | None, typer.Option(help="Resize and crop to WIDTHxHEIGHT first.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Send a video through the tokenizer and back, and print its PSNR."""
    quiet()
    from longtake.pipelines.loading import load_tokenizer
    from longtake.pipelines.reconstructing import reconstruct

    with bar("frames", frames or 1) as advance:
        trip = reconstruct(
            file,
            load_tokenizer(model, device=device),
            out=out,
            frames=frames,
            size=None if size is None else parse_size(size),
            on_frames=advance,
        )
    if as_json:
        print_json({"file": str(file), **dataclasses.asdict(trip)})
        return
    print(
        f"{file}  PSNR {trip.psnr:.2f} dB (worst frame {trip.worst:.2f}), {trip.frames} frames "
        f"{trip.width}x{trip.height}, {trip.seconds:.1f} s" + (f"; {trip.note}" if trip.note else "")
    )


app.command()(evaluate)
app.command()(compare)
app.command()(calibrate)
app.command()(systems)


@app.command("import")
def import_(
    system: Annotated[str, typer.Argument(help="Whose checkpoint it is: latte, tats.")],
    checkpoint: Annotated[Path, typer.Argument(help="File of weights, or a folder as diffusers keeps it.")],
    out: Annotated[Path, typer.Option(help="Pipeline folder to write.")],
    autoencoder: Annotated[
        Path | None,
        typer.Option(help="latte: folder of the AutoencoderKL that it was trained with; needed for a file."),
    ] = None,
    interpolator: Annotated[
        Path | None, typer.Option(help="tats: checkpoint of what fills the gaps between key frames.")
    ] = None,
    classes: Annotated[Path | None, typer.Option(help="Text file of the classes' names, one a line, in order.")] = None,
    frames: Annotated[int, typer.Option(help="Frames of the clips that it was trained on.")] = 16,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of these; default: 256x256, tats: 128x128.")] = None,
) -> None:
    """Turn a published checkpoint into a pipeline folder, for --model."""
    if system not in ("latte", "tats"):
        raise UnknownName(f"nothing of '{system}' can be imported.{nearest(system, ['latte', 'tats'])}")
    for option, value, owner in (("autoencoder", autoencoder, "latte"), ("interpolator", interpolator, "tats")):
        if value is not None and system != owner:
            raise BadInput(f"--{option} is for {owner}, and {system} is imported: leave it out")
    quiet()
    from longtake.autoregressive.tats.official import import_tats
    from longtake.pipelines.importing import import_latte, read_names

    names = () if classes is None else read_names(classes)
    given = {"classes": names, "frames": frames}
    if system == "latte":
        made = import_latte(checkpoint, out, autoencoder=autoencoder, size=parse_size(size or "256x256"), **given)
    else:
        made = import_tats(checkpoint, out, interpolator=interpolator, size=parse_size(size or "128x128"), **given)
    print(f"{made}  imported; longtake generate PROMPT --model {made}")


# ------------------------------------------------------------------------------------------------------------ plumbing


def main() -> None:
    """Run a command. Errors are one line on standard error: exit code 2 for the user's mistake, 1 for ours."""
    try:
        code = app(standalone_mode=False)
    except LongtakeError as error:
        stop(str(error), 2)
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of the command line's own parser
            stop(f"{error.format_message()} ('longtake --help' shows what there is)", 2)
        stop(f"internal error, please report it: {type(error).__name__}: {error}", 1)
    if code == INTERRUPTED:
        say("interrupted")
    sys.exit(code if isinstance(code, int) else 0)

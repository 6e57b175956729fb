"""A clip of 1,028 frames by TATS: seconds and tokens a second of the hierarchy against the base, and memory over length.

    python benchmarks/long_clip.py [--model FOLDER] [--only draw memory]

draw     ids of the whole clip, 257 latent frames. "base": a GPT of the size of the model's GPT-A and weights of its own
         (drawing takes the same time whatever they are), which writes every latent frame and looks back at three, as the
         model does, or at one, as published. "hierarchy": the model's two transformers, gaps in one batch of 64, or one
         by one. The baseline is the base that looks back at three.
memory   bytes by which the process' memory rises while the ids of clips of 260, 516 and 1,028 frames are drawn, and while
         they are decoded in pieces that are dropped, or in one pass; each in a process of its own.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

import longtake
from longtake.autoregressive.tats.hierarchy import hierarchical
from longtake.autoregressive.tats.pipeline import Drawing, TatsPipeline
from longtake.autoregressive.tats.windows import slide
from longtake.backbones.gpt import GPT
from longtake.backbones.gpt_sampling import draw_noise
from timing import arguments, compare, peak_memory, save

LATENT_FRAMES = (65, 129, 257)
PARTS = ("draw", "decode in pieces", "decode in one pass")


def pipeline(model: str) -> TatsPipeline:
    """The model, which must be a hierarchy."""
    pipe = longtake.load(model)
    if not isinstance(pipe, TatsPipeline) or pipe.interpolator is None:
        sys.exit(f"{model} is no hierarchy of TATS; give the folder of one, such as starter-tats")
    return pipe


def drawn(pipe: TatsPipeline, frames: int, at_once: int = 64) -> Tensor:
    """Ids of the hierarchy."""
    noise, drawing = draw_noise([torch.Generator().manual_seed(0)], frames * pipe.layout.per_frame), of(pipe)
    given = {"spacing": pipe.config.spacing, "choice": drawing.choice, "context": drawing.context, "at_once": at_once}
    return hierarchical(
        pipe.transformer, pipe.interpolator, pipe.layout, torch.zeros(1, 1, dtype=torch.long), noise, **given
    )


def of(pipe: TatsPipeline) -> Drawing:
    """How its tokens are drawn."""
    return Drawing.of(pipe.config.drawing)


def times(pipe: TatsPipeline, repeats: int) -> dict[str, object]:
    """The table of `draw`."""
    frames, u, condition = LATENT_FRAMES[-1], pipe.layout.per_frame, torch.zeros(1, 1, dtype=torch.long)
    torch.manual_seed(0)
    base = GPT.from_config(pipe.transformer.config).eval()
    noise = draw_noise([torch.Generator().manual_seed(0)], frames * u)

    def written(context: int | None) -> Tensor:
        return slide(base, pipe.layout, condition, noise, choice=of(pipe).choice, context=context)

    found = compare(
        {
            "base, 3 back": lambda: written(None),
            "base, 1 back": lambda: written(1),
            "hierarchy, gaps one by one": lambda: drawn(pipe, frames, at_once=1),
            "hierarchy": lambda: drawn(pipe, frames),
        },
        repeats=repeats,
        warmup=0,
    )
    print(found)
    rates = {timing.name: round(frames * u / timing.median, 1) for timing in found.timings}
    print("tokens a second:", rates, flush=True)
    return {"draw": found, "tokens a second": rates}


def memory(model: str, part: str, frames: int) -> int:
    """Bytes by which one part raises this process' memory."""
    pipe = pipeline(model)
    ids = torch.randint(pipe.tokenizer.config.codes, (1, frames, pipe.layout.rows, pipe.layout.columns))
    for piece in pipe.tokenizer.decode_stream(ids[:, :16]):  # what is loaded by first calls is none of the clip's
        del piece
    drawn(pipe, 5)
    if part == "draw":
        return peak_memory(lambda: drawn(pipe, frames))
    if part == "decode in one pass":
        return peak_memory(lambda: pipe.tokenizer.decode(ids))
    return peak_memory(lambda: [None for _ in pipe.tokenizer.decode_stream(ids)])


def main() -> None:
    """Time, print, write; or measure one part's memory, for the process that asked."""
    if sys.argv[1:2] == ["memory-of"]:
        print(json.dumps(memory(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
        return
    extra = argparse.ArgumentParser(add_help=False)
    extra.add_argument("--model", default="starter-tats")
    model, sys.argv[1:] = (found := extra.parse_known_args())[0].model, found[1]
    chosen = arguments(__doc__, repeats=3, only=("draw", "memory"))
    results: dict[str, object] = {}
    if chosen.only and (chosen.out / "long_clip.json").exists():
        results = json.loads((chosen.out / "long_clip.json").read_text())["results"]
    if not chosen.only or "draw" in chosen.only:
        results |= times(pipeline(model), chosen.repeats)
    if not chosen.only or "memory" in chosen.only:
        rows = {}
        for part in PARTS:
            for frames in LATENT_FRAMES:
                call = [sys.executable, __file__, "memory-of", model, part, str(frames)]
                told = subprocess.run(call, check=True, capture_output=True, text=True, cwd=Path.cwd()).stdout
                rows.setdefault(part, {})[f"{4 * frames} frames"] = int(told.splitlines()[-1])
            print(part, {name: f"{value / 2**20:.0f} MiB" for name, value in rows[part].items()}, flush=True)
        results["memory"] = rows
    setting = {"model": Path(model).name, "latent_frames": LATENT_FRAMES, "threads": torch.get_num_threads()}
    print("written:", save("long_clip", results, setting=setting, folder=chosen.out))


if __name__ == "__main__":
    main()

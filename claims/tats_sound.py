"""TATS, sound: a clip made to a sound bounces when the sound does.

Statement: with the ids of a sound in front of the window's tokens (the audio condition of arXiv 2204.03638), the motion
events of a generated clip fall within two frames of the sound's events more often than of another sound's.
Measured: tats-sound-tiny (clips of a ball that bounces or rolls, 16 frames of 32x32 at 16 a second, one second; tokenizers
of 256 and 128 codes, base of 4 blocks of width 128), trained from each seed. A clip for each of 96 sounds of held-out scenes
that have a contact between frames 1.5 and 13.5, where a turn can be seen on both sides. Bounces are read off the pixels of
the clip (`longtake.evaluation.bounces`: the height of what is colourful turns from down to up). The share of contacts of a
clip's own sound that have one within two frames.
Baseline: the same clips, at no cost, scored with the sounds of the others: the mean over all 95 rotations of the 96
sounds. The ceiling, both shares on the true renders of the same scenes, is printed beside.
Thresholds: `holds` when in every seed the share is at least 0.2 above the baseline's; `does not hold` when in every seed it
is less than 0.05 above; else `inconclusive`, and so when on renders the share is below 0.9 or less than 0.4 above, for then
the detector could not show it.

    python claims/tats_sound.py [--steps 3000] [--tokenizer-steps 1000] [--scenes 4000] [--seeds 0 1 2] [--clips 96]
                                [--cache DIR] [--out FILE]

Trainings run on a GPU where there is one. Trainings and clips are kept in the cache, and an interrupted run goes on with
them.
"""

import argparse
from pathlib import Path
from statistics import mean

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from support import kept, machines, write_result
from torch import Tensor

import longtake
from longtake.data.scenes import Scene, SceneOptions, render_scenes, sample_scene, scene_sound, sound_events
from longtake.evaluation.bounces import bounces, heard_and_seen, heights
from longtake.training import train
from longtake.training.recipe import load_recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "tats-sound-tiny.yaml"
FIRST, LAST, WITHIN = 1.5, 13.5, 2.0
THRESHOLDS = {"above": 0.2, "not_above": 0.05, "renders": 0.9, "renders_above": 0.4}
DATA = load_recipe(RECIPE)[0].data


def trained(seed: int, given: argparse.Namespace) -> Path:
    """Folder of the base."""
    out = folder(seed, given)
    steps = [f"stages.{stage}.steps={given.tokenizer_steps}" for stage in ("tokenizer", "ears")]
    quick = ["samples.every=0", "validation.every=0", "checkpoint.best=false"]
    where = [f"out={out}", f"seed={seed}", f"data.cache={given.cache / 'data'}", f"data.count={given.scenes}"]
    results = train(RECIPE, [*where, *quick, *steps, f"stages.base.steps={given.steps}"], resume=True)
    assert results[-1].stopped == "finished", results[-1]
    return out / "base" / "export"


def folder(seed: int, given: argparse.Namespace) -> Path:
    """Where a seed's trainings and clips are kept."""
    return given.cache / f"{given.steps}-{given.tokenizer_steps}-{given.scenes}-{seed}"


def contacts(scene: Scene) -> list[float]:
    """The scene's contacts that count, in frames."""
    events = sound_events(scene, DATA.frames, fps=DATA.fps or 8.0)
    return [one.frame for one in events.contacts if FIRST <= one.frame <= LAST]


def heard_scenes(count: int) -> list[Scene]:
    """The first held-out scenes with contacts that count."""
    chosen = {name: tuple(value) for name, value in DATA.options.items()}
    options = SceneOptions(**chosen, split="held-out")
    found: list[Scene] = []
    seed = 0
    while len(found) < count:
        scene = sample_scene(seed, options)
        found += [scene] if contacts(scene) else []
        seed += 1
    return found


def clips_to(scenes: list[Scene], seed: int, given: argparse.Namespace) -> Tensor:
    """A clip for the sound of each scene, (B, 3, 16, 32, 32) in [-1, 1]."""
    kept = folder(seed, given) / f"clips-{len(scenes)}.safetensors"
    if not kept.exists():
        pipe = longtake.load(trained(seed, given))
        made = [
            pipe(audio=scene_sound(scene, DATA.frames, fps=pipe.config.fps), seed=100_000 * seed + number).clip.pixels
            for number, scene in enumerate(track(scenes, f"clips of seed {seed}"))
        ]
        partial = kept.with_suffix(".partial")
        save_file({"pixels": torch.cat(made).contiguous()}, partial)
        partial.replace(kept)
    return load_file(kept)["pixels"]


def scored(clips: Tensor, heard: list[list[float]]) -> dict[str, float]:
    """Share of contacts that have a bounce near, of the clips' own sounds and of those of the others."""
    seen = [bounces(height) for height in heights(clips)]
    near, count = heard_and_seen(heard, seen, within=WITHIN)
    others = []
    for turn in range(1, len(heard)):
        right, total = heard_and_seen(heard[turn:] + heard[:turn], seen, within=WITHIN)
        others.append(right / total)
    own = near / count
    return {
        "own": own,
        "others": mean(others),
        "above": own - mean(others),
        "contacts": float(count),
        "bounces_seen": float(sum(map(len, seen))),
    }


def judged(rows: list[dict[str, float]], renders: dict[str, float]) -> str:
    """The verdict over the seeds."""
    if renders["own"] < THRESHOLDS["renders"] or renders["above"] < THRESHOLDS["renders_above"]:
        return "inconclusive"
    if all(row["above"] >= THRESHOLDS["above"] for row in rows):
        return "holds"
    return "does not hold" if all(row["above"] < THRESHOLDS["not_above"] for row in rows) else "inconclusive"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="of the base")
    parser.add_argument("--tokenizer-steps", type=int, default=1000, help="of each of the two tokenizers")
    parser.add_argument("--scenes", type=int, default=4000, help="to train on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--cache", type=Path, default=Path("runs/tats_sound"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tats_sound.json")
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    scenes = heard_scenes(given.clips)
    heard = [contacts(scene) for scene in scenes]
    truth = render_scenes(scenes, DATA.frames, DATA.height, DATA.width, fps=DATA.fps or 8.0)
    renders = scored(truth, heard)
    show("renders", renders)
    rows, files = [], [folder(seed, given) / f"measured-{given.clips}.json" for seed in given.seeds]
    for seed, file in zip(given.seeds, files, strict=True):
        rows.append(kept(file, lambda seed=seed: scored(clips_to(scenes, seed, given), heard)))
        show(f"seed {seed}", rows[-1])
    verdict = judged(rows, renders)
    print(verdict)
    write_result(
        given.out,
        {
            "name": "tats_sound",
            "statement": "A clip made to a sound bounces within two frames of its contacts more often than of another's.",
            "verdict": verdict,
            "thresholds": THRESHOLDS,
            "seeds": given.seeds,
            "steps": given.steps,
            "tokenizer_steps": given.tokenizer_steps,
            "scenes": given.scenes,
            "clips": given.clips,
            "renders": renders,
            "rows": rows,
            "trained_on": machines(files),
        },
    )


def show(name: str, row: dict[str, float]) -> None:
    """One line of the table."""
    print(f"{name:8}" + "".join(f"  {key} {value:.3f}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()

"""The starter does what its prompt says: read-back on 200 held-out prompts.

Statement: of 200 prompts whose attribute combinations no training clip has shown (100 with one object, 100 with two),
clips of the starter show the colours, shapes, motions and backgrounds that were asked for.
Measured: the share of attributes that the read-back detector recovers from the generated clips, with the detector's
own accuracy on held-out renders beside it; and the tokenizer's PSNR on 64 held-out renders.
Thresholds: one object: colour 0.97, shape 0.90, motion 0.90, background 0.95; two objects, each: colour 0.90,
shape 0.80, motion 0.80; the detector itself 0.97 for each of these attributes; PSNR 30 dB. The verdict is `holds` when
all are reached.
There is no baseline: the detector's accuracy on real renders is the ceiling, chance is 1/8, 1/4, 1/12 and 1/4.

    python claims/starter_readback.py [--model starter] [--prompts 200] [--steps 30] [--guidance 4] [--seed 0]
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from support import write_result

import longtake
from longtake.data.scenes import SceneOptions, render_scenes, sample_scene
from longtake.evaluation.readback import ATTRIBUTES, score_readings
from longtake.evaluation.readback.fitting import shipped_detector

FIRST_SEED = 500_000
"""Held-out scenes are drawn from here on; the detector's own test uses other seeds."""
THRESHOLDS = {
    "one object": {"colour": 0.97, "shape": 0.90, "motion": 0.90, "background": 0.95},
    "two objects": {"colour": 0.90, "shape": 0.80, "motion": 0.80},
    "detector": {"colour": 0.97, "shape": 0.97, "motion": 0.97, "background": 0.97},
}
PSNR = 30.0


def main() -> None:
    """Generate, read back, print the table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="starter")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "starter_readback.json")
    args = parser.parse_args()

    pipe = longtake.load(args.model)
    pipe.set_progress_bar_config(disable=True)
    detector = shipped_detector()
    options = SceneOptions(split="held-out")
    half = args.prompts // 2
    groups = {
        "one object": [sample_scene(FIRST_SEED + i, replace(options, pair_share=0.0)) for i in range(half)],
        "two objects": [sample_scene(FIRST_SEED + i, replace(options, pair_share=1.0)) for i in range(half)],
    }
    measured: dict[str, dict[str, float]] = {}
    misses: list[dict] = []
    begun = time.perf_counter()
    for name, scenes in groups.items():
        readings = []
        for i, scene in enumerate(scenes):
            result = pipe(scene.caption, steps=args.steps, guidance=args.guidance, seed=args.seed + i)
            reading = detector.read(result.clip.pixels, [len(scene.objects)])[0]
            readings.append(reading)
            if score_readings([reading], [scene.attributes]).accuracy != dict.fromkeys(ATTRIBUTES, 1.0):
                misses.append({"prompt": scene.caption, "read": [vars(thing) for thing in reading.objects]})
            print(f"\r{name}: {i + 1}/{half}", end="", flush=True)
        measured[name] = score_readings(readings, [scene.attributes for scene in scenes]).accuracy
        print()
    seconds = (time.perf_counter() - begun) / (2 * half)
    measured["detector"] = dict(detector.config.own_accuracy)
    psnr = tokenizer_psnr(pipe.tokenizer, [sample_scene(FIRST_SEED + 10_000 + i, options) for i in range(64)])

    short = [
        f"{group} {name} {measured[group][name]:.3f} < {least}"
        for group, wanted in THRESHOLDS.items()
        for name, least in wanted.items()
        if measured[group][name] < least
    ]
    short += [f"psnr {psnr:.2f} < {PSNR}"] if psnr < PSNR else []
    print(f"{'':14}" + "".join(f"{name:>12}" for name in ATTRIBUTES))
    for group, values in measured.items():
        print(f"{group:14}" + "".join(f"{values.get(name, float('nan')):12.3f}" for name in ATTRIBUTES))
    print(f"tokenizer PSNR {psnr:.2f} dB on 64 held-out renders; {seconds:.2f} s per clip")
    print("verdict:", "holds" if not short else "does not hold: " + "; ".join(short))
    result = {
        "name": "starter_readback",
        "statement": "On held-out prompts the starter's clips show the attributes that were asked for.",
        "verdict": "holds" if not short else "does not hold",
        "short_of": short,
        "accuracy": {group: {k: round(v, 4) for k, v in values.items()} for group, values in measured.items()},
        "thresholds": {**THRESHOLDS, "psnr": PSNR},
        "tokenizer_psnr": round(psnr, 3),
        "prompts": 2 * half,
        "seeds": [args.seed, args.seed + half - 1],
        "steps": args.steps,
        "guidance": args.guidance,
        "weights": pipe.weights(),
        "seconds_per_clip": round(seconds, 3),
        "misses": misses,
    }
    write_result(args.out, result)


@torch.no_grad()
def tokenizer_psnr(tokenizer: torch.nn.Module, scenes: list) -> float:
    """Mean over clips of the PSNR in dB of a round trip, at 17 x 64 x 64, on pixels in [-1, 1]."""
    values = []
    for i in range(0, len(scenes), 8):
        pixels = render_scenes(scenes[i : i + 8])
        error = (tokenizer.decode(tokenizer.encode(pixels)) - pixels).square().mean((1, 2, 3, 4))
        values.append(10 * torch.log10(4 / error))
    return float(torch.cat(values).mean())


if __name__ == "__main__":
    main()

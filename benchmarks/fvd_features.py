"""Clips per second of FVD features from video files, and the share of the time that decoding takes.

Candidates are the steps of one and the same pass over the same files, 17 frames of 256x256 H.264 each:
    decode            read and prepare every clip, show it to nobody
    features          the network alone, on clips that are in memory
    evaluate          the engine: decode, prepare, features in shards, no cache
    evaluate, 1 (2) workers   with so many processes that decode ahead

The baseline is plain PyAV decoding of the same frames, without preparation. The share is (evaluate - features) / evaluate
of the medians, and what the engine itself measured stands beside it.
"""

import sys
import tempfile
from pathlib import Path

import av
import torch

from longtake.evaluation.cuts import Cuts, cut
from longtake.evaluation.looking import features_of_clips
from longtake.evaluation.networks import FeatureNetwork, load_network
from longtake.evaluation.networks.finding import STARTERS
from longtake.evaluation.observing import observe, read_clip
from longtake.evaluation.protocol import Side
from longtake.evaluation.sources import open_source
from longtake.video import Clip, write_clip
from timing import arguments, compare, save

FRAMES, SIZE, CLIPS, BATCH = 17, 256, 16, 8
WORKERS = (1, 2)


def write_files(folder: Path) -> None:
    """Write clips of a soft texture that glides."""
    generator = torch.Generator().manual_seed(0)
    for number in range(CLIPS):
        coarse = torch.rand(1, 3, 1, 16, 16, generator=generator)
        still = torch.nn.functional.interpolate(coarse, size=(1, SIZE, SIZE), mode="trilinear")[0, :, 0] * 2 - 1
        frames = torch.stack([still.roll((3 * t, 2 * t), (1, 2)) for t in range(FRAMES)], 1)
        write_clip(Clip(frames[None], 8.0), folder / f"{number:03d}.mp4", crf=18)


def pyav(folder: Path) -> int:
    """Decode every frame to RGB in a plain loop."""
    count = 0
    for path in sorted(folder.glob("*.mp4")):
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")
                count += 1
    return count


def evaluate(cuts: Cuts, network: FeatureNetwork, workers: int = 0) -> tuple[float, float]:
    seen = observe(cuts, [features_of_clips(network)], batch=BATCH, workers=workers)
    assert seen.rows[network.name].shape == (CLIPS, 1, network.width)
    return seen.decode_seconds, seen.look_seconds


def main() -> int:
    """Print the table and write the record."""
    options = arguments(__doc__, repeats=5)
    shipped = (STARTERS / "scenes-3d" / "config.json").is_file()
    network = load_network("scenes-3d" if shipped else "random-3d")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder)
        cuts = cut(open_source(folder), Side(frames=FRAMES))
        held = torch.stack([read_clip(cuts, number) for number in range(CLIPS)])
        result = compare(
            {
                "PyAV": lambda: pyav(folder),
                "decode": lambda: [read_clip(cuts, number) for number in range(CLIPS)],
                "features": lambda: [network(part) for part in held.split(BATCH)],
                "evaluate": lambda: evaluate(cuts, network),
                **{f"evaluate, {n} workers": lambda n=n: evaluate(cuts, network, n) for n in WORKERS},
            },
            repeats=options.repeats,
        )
        decode, look = evaluate(cuts, network)
    print(result)
    rates = {timing.name: CLIPS / timing.median for timing in result.timings}
    share = 1 - result["features"].median / result["evaluate"].median
    print(f"\nclips/s with {network.name}: " + ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items()))
    print(f"decoding takes {share:.0%} of evaluate ({decode / (decode + look):.0%} by the engine's own clocks)")
    results = {
        "features": result,
        "clips_per_second": rates,
        "decoding_share": share,
        "decoding_share_engine": decode / (decode + look),
    }
    setting = {"frames": FRAMES, "size": SIZE, "clips": CLIPS, "batch": BATCH, "network": network.name}
    print("wrote", save("fvd_features", results, setting=setting, folder=options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())

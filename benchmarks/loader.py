"""Frames per second of the data loader against plain PyAV decoding of the same files.

Three kinds of files (H.264 at 640x360 and at 1280x720, MPEG-4 in AVI at 320x240 as UCF-101 has it), two kinds of work:
    whole     every frame of every file, once: the loader gives them as windows of 16 in order
    windows   one random window of 16 frames of every file

"PyAV" is a plain loop over ``container.decode`` with the frames that are wanted turned to RGB by ``to_ndarray``; for a
window it decodes from the start of the file up to the window's end. It neither resizes nor makes batches. "longtake"
also converts colours exactly, resizes to 64x64 with antialias, and stacks batches of 4, with no, one and two worker
processes (each decodes with one thread; their start is not counted).
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import Colorspace
from torch.utils.data import DataLoader

from longtake.data.folder import VideoFolder
from longtake.data.presets import FolderOptions
from longtake.data.resize import resize_frames
from timing import arguments, compare, save

WINDOW, SIZE, BATCH, FILES, FRAMES = 16, 64, 4, 4, 96
WORKERS = (0, 1, 2)
KINDS = {
    "h264 640x360": ("libx264", ".mp4", 360, 640),
    "h264 1280x720": ("libx264", ".mp4", 720, 1280),
    "mpeg4 320x240": ("mpeg4", ".avi", 240, 320),
}


def write_files(folder: Path, codec: str, suffix: str, height: int, width: int) -> None:
    """Write videos of a soft texture that glides over a still one."""
    generator = np.random.default_rng(0)
    for number in range(FILES):
        coarse = torch.from_numpy(generator.random((2, 3, height // 20, width // 20), dtype=np.float32))
        back, front = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
        with av.open(str(folder / f"{number}{suffix}"), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(25))
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 2_000_000
            stream.codec_context.colorspace = Colorspace.SMPTE170M  # what from_ndarray writes, also at 720 lines
            for frame in range(FRAMES):
                picture = (back + front.roll((frame, 3 * frame), (1, 2))) * 127
                rgb = picture.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
                container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
            container.mux(stream.encode(None))


def pyav_frames(path: Path, first: int, last: int, threads: str) -> Iterator[np.ndarray]:
    """Frames first .. last - 1 as RGB, decoding from the start."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = threads
        for number, frame in enumerate(container.decode(stream)):
            if number >= last:
                return
            if number >= first:
                yield frame.to_ndarray(format="rgb24")


def pyav(spans: list[tuple[Path, int, int]], threads: str) -> Callable[[], int]:
    return lambda: sum(1 for path, first, last in spans for _ in pyav_frames(path, first, last, threads))


class Loader:
    """Our loader over all items of a set, in order; its worker processes live from one pass to the next."""

    def __init__(self, data: VideoFolder, workers: int) -> None:
        self.loader = DataLoader(data, BATCH, num_workers=workers, persistent_workers=workers > 0)

    def __call__(self) -> int:
        return sum(batch["pixels"].shape[0] * batch["pixels"].shape[2] for batch in self.loader)


def assert_same_frames(data: VideoFolder, spans: list[tuple[Path, int, int]]) -> None:
    """Both give the same pictures, up to the rounding of PyAV's faster colour conversion."""
    path, first, last = spans[-1]
    theirs = torch.from_numpy(np.stack(list(pyav_frames(path, first, last, "SLICE"))))[-WINDOW:]
    difference = (resize_frames(theirs, SIZE, SIZE) - data[len(data) - 1]["pixels"]).abs().mean()
    assert difference < 0.03, f"the loader gives other frames than PyAV: {difference:.3f} apart"


def work(root: Path, take: str) -> tuple[VideoFolder, list[tuple[Path, int, int]]]:
    """Return our data set and what PyAV has to decode for the same frames."""
    options = FolderOptions(
        frames=WINDOW, height=SIZE, width=SIZE, take=take, every=WINDOW if take == "every" else None
    )
    data = VideoFolder(root, options, progress=False)
    if take == "every":
        return data, [(piece.source.path, 0, FRAMES) for piece in data.pieces]
    starts = [data._window(piece, index, 0) for index, piece in enumerate(data.pieces)]
    return data, [(piece.source.path, start, start + WINDOW) for piece, start in zip(data.pieces, starts, strict=True)]


def main() -> int:
    """Print the tables and write the record."""
    options = arguments(__doc__, repeats=5)
    results: dict[str, object] = {}
    rates: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, (codec, suffix, height, width) in KINDS.items():
            root = Path(folder) / kind.replace(" ", "-")
            root.mkdir()
            write_files(root, codec, suffix, height, width)
            for name, take in (("whole", "every"), ("windows", "random")):
                data, spans = work(root, take)
                assert_same_frames(data, spans)
                candidates: dict[str, Callable[[], int]] = {
                    "PyAV": pyav(spans, "SLICE"),
                    "PyAV, all threads": pyav(spans, "AUTO"),
                    **{f"longtake, {workers} workers": Loader(data, workers) for workers in WORKERS},
                }
                counts = {run() for run in candidates.values()}
                assert len(counts) == 1, f"not the same number of frames: {counts}"
                (count,) = counts
                result = compare(candidates, repeats=options.repeats)
                rates[f"{kind}, {name}"] = {timing.name: count / timing.median for timing in result.timings}
                print(f"\n{kind}, {name}: {count} frames\n{result}", flush=True)
                results[f"{kind}, {name}"] = result
                del candidates
    names = next(iter(rates.values()))
    print(f"\n{'frames/s':<26}" + "".join(f"{name:>21}" for name in names))
    for row, values in rates.items():
        print(f"{row:<26}" + "".join(f"{value:>21.0f}" for value in values.values()))
    results["frames_per_second"] = rates
    setting = {"window": WINDOW, "size": SIZE, "batch": BATCH, "files": FILES, "frames": FRAMES, "kinds": KINDS}
    print("wrote", save("loader", results, setting=setting, folder=options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())

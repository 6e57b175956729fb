"""Streaming against one-shot decoding of the same latents: time ratio and peak memory over the clip's length.

Baseline: `CausalVAE.decode`, all latents at once. Candidates: `CausalVAE.decode_stream` with the default chunk and
others. The goal is a ratio of at most 1.15 with memory that does not depend on the number of frames.

Memory is the peak of the process (or of the GPU) above what it held before the first decoding, without the clip itself:
the stream's pieces are dropped as they come, and the one-shot clip is subtracted. The C library is told to hand freed
memory back at once; that costs time, so the times are taken before.
"""

import ctypes
import sys
from collections.abc import Callable

import torch

from longtake.tokenizers.causal_vae import CausalVAE
from timing import arguments, compare, peak_memory, process_memory, save

FRAMES = (17, 65, 129)
SIZE = 64  # pixels; small pictures are the harder case, as a stream's overhead does not depend on their size
CONFIG = {"base_width": 32, "multipliers": (1, 2, 4), "blocks_per_level": 1, "patch_size": 2}
M_MMAP_THRESHOLD = -3  # of mallopt(3): blocks from this size on are mapped, and unmapped when freed


def one_shot(vae: CausalVAE, latents: torch.Tensor) -> torch.Tensor:
    """Decode all latents at once."""
    with torch.no_grad():
        return vae.decode(latents)


def stream(vae: CausalVAE, latents: torch.Tensor, chunk: int) -> None:
    """Decode chunk by chunk and drop what comes out."""
    for _ in vae.decode_stream(latents, chunk=chunk):
        pass


def hand_freed_memory_back() -> None:
    """Make the process' memory follow what is alive, from 64 KiB on; nothing to do for a GPU or another C library."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 16)
        libc.malloc_trim(0)
    except (OSError, AttributeError):
        print("not glibc: memory that the allocator keeps may hide a peak")


def peaks(vae: CausalVAE, clips: dict[int, torch.Tensor], chunks: list[int]) -> dict[str, dict[int, int]]:
    """Peak bytes of each way of decoding at each length. Growing lengths: what the process keeps counts later too."""
    hand_freed_memory_back()
    one_shot(vae, clips[FRAMES[0]][:, :, :1])  # what the libraries allocate once
    base = process_memory("VmRSS")

    def peak(function: Callable[[], object]) -> int:
        kept = 0 if next(vae.parameters()).is_cuda else process_memory("VmRSS") - base
        return kept + peak_memory(function)

    memory = {
        f"stream {chunk}": {n: peak(lambda z=z, c=chunk: stream(vae, z, c)) for n, z in clips.items()}
        for chunk in chunks
    }
    memory["one shot"] = {n: peak(lambda z=z: one_shot(vae, z)) - 3 * n * SIZE * SIZE * 4 for n, z in clips.items()}
    return memory


def main() -> int:
    """Print the tables, write the record, and return 1 where the goal is missed."""
    options = arguments(__doc__, repeats=5)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    vae = CausalVAE(**CONFIG).eval().to(device)
    chosen = vae.stream_chunk(SIZE, SIZE)
    chunks = sorted({1, chosen})
    clips = {}
    for frames in FRAMES:
        shape = (1, vae.config.latent_channels, *vae.latent_shape(frames, SIZE, SIZE))
        clips[frames] = torch.randn(shape, generator=generator).to(device)
    results: dict[str, object] = {}
    ratios: dict[int, dict[str, float]] = {}
    for frames, latents in clips.items():
        pieces = torch.cat(list(vae.decode_stream(latents)), dim=2)
        torch.testing.assert_close(pieces, one_shot(vae, latents), atol=1e-5, rtol=0)
        candidates = {"one shot": lambda z=latents: one_shot(vae, z)}
        for chunk in chunks:
            candidates[f"stream {chunk}"] = lambda z=latents, c=chunk: stream(vae, z, c)
        result = compare(candidates, repeats=options.repeats)
        print(f"\n{frames} frames of {SIZE}x{SIZE}\n{result}", flush=True)
        results[f"{frames} frames"] = result
        ratios[frames] = {timing.name: timing.ratio for timing in result.timings}

    memory = peaks(vae, clips, chunks)
    print(f"\n{'peak MiB without the clip':<28}" + "".join(f"{f'{frames} frames':>14}" for frames in FRAMES))
    for name, sizes in memory.items():
        print(f"{name:<28}" + "".join(f"{sizes[frames] / 2**20:>14.1f}" for frames in FRAMES))

    default = f"stream {chosen}"
    worst = max(ratios[frames][default] for frames in FRAMES)
    growth = memory[default][FRAMES[-1]] / max(memory[default][FRAMES[0]], 1)
    reached = worst <= 1.15 and growth <= 1.15
    print(
        f"\n{default}, the default: time ratio at most {worst:.3f} (goal 1.15), memory x{growth:.2f} over the lengths"
    )
    results |= {"peak_bytes": memory, "worst_ratio": worst, "memory_growth": growth, "goal_reached": reached}
    setting = {"config": CONFIG, "size": SIZE, "default_chunk": chosen, "device": device}
    print("wrote", save("vae_decode", results, setting=setting, folder=options.out))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())

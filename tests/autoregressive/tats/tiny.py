"""A small TATS for tests: 2x3 tokens a latent frame, 7 codes, 3 classes."""

import torch

from longtake.autoregressive.tats.hierarchy import gap_length
from longtake.autoregressive.tats.layout import Layout, layout
from longtake.backbones.gpt import GPT
from longtake.backbones.gpt_sampling import Choice, draw_noise

LAYOUT = layout("class", codes=7, rows=2, columns=3, classes=3)
U = LAYOUT.per_frame
DRAWN, GREEDY = Choice(top_k=5, top_p=0.95), Choice(temperature=0)


def gpt(length: int, own: Layout = LAYOUT, seed: int = 0, **changes) -> GPT:
    """With all weights alive: tables of positions begin at 0."""
    made = GPT(own.vocabulary, length, width=16, depth=2, heads=2, **changes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(std=0.4, generator=generator)
    return made.eval()


def base(frames: int = 4, own: Layout = LAYOUT, **changes) -> GPT:
    return gpt(own.window_length(frames), own, **changes)


def between(spacing: int = 4, own: Layout = LAYOUT) -> GPT:
    return gpt(gap_length(own, spacing), own, seed=1)


def noise(frames: int, *seeds: int) -> torch.Tensor:
    return draw_noise([torch.Generator().manual_seed(seed) for seed in seeds], frames * U)


def ids(batch: int, frames: int, seed: int = 0, own: Layout = LAYOUT) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(own.codes, (batch, frames, own.rows, own.columns), generator=generator)

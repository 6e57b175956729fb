"""TATS, padding: zeros at the border tell a latent frame where in the clip it is, repeated border frames do not.

Statement (arXiv 2204.03638, section 3.2): padding with zeros makes the codes of a clip depend on their place in
it; padding with the border's own frames removes most of that, so codes of different windows can be set side by side.
Measured: two tokenizers trained alike, but for the padding, on clips of a disc that bounces about (16 frames of 16x16, 4x4x4
tokens, 8 base channels, 128 codes of width 32, 600 steps of 8 clips, no discriminators). The disc's place and speed have
the same distribution in every frame, so that nothing else tells the time. A linear probe names the place of a latent
frame among the clip's four, from its codes and from the histogram of its ids: accuracy on clips that neither tokenizer
nor probe has seen, chance 0.25. On still clips, the share of ids that differ from those of the first latent frame.
Baseline: the tokenizer with zeros, of the same cost. Three seeds, each of the weights, the clips and the probe.
Thresholds: `holds` when in every seed the probe on codes reaches 0.45 with zeros and at most 0.35 with repeated frames, and
on still clips no id differs with repeated frames and at least 5 % do with zeros; `does not hold` when no seed does all of
that, else `inconclusive`.

    python claims/tats_padding.py [--steps 600] [--seeds 0 1 2] [--out FILE]
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from support import write_result
from torch import Tensor, nn

from longtake.tokenizers.discriminator import PatchDiscriminator
from longtake.tokenizers.vqgan3d import VQGAN3d
from longtake.tokenizers.vqgan_loss import VqganLoss

STATEMENT = (
    "a latent frame of a tokenizer with zero padding says where in the clip it is, one with replicate padding does not"
)
THRESHOLDS = {"probe_zeros": 0.45, "probe_replicate": 0.35, "still_zeros": 0.05, "still_replicate": 0.0}
FRAMES, SIDE, BATCH = 16, 16, 8
RESULT = Path(__file__).parent / "results" / "tats_padding.json"


def discs(count: int, generator: torch.Generator, *, still: bool = False) -> Tensor:
    """Clips (count, 3, 16, 16, 16) in [-1, 1] of a disc of any colour on a plain background, bouncing off the borders."""
    place, speed = torch.rand(count, 1, 2, generator=generator), torch.randn(count, 1, 2, generator=generator) / 16
    path = place * 2 + (0 if still else speed) * torch.arange(FRAMES)[None, :, None]
    centre = 3 + (SIDE - 7) * (1 - (path % 2 - 1).abs())  # a line folded at both borders: even in every frame
    radius = 2 + 2 * torch.rand(count, 1, 1, 1, generator=generator)
    grid = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij"), -1)
    distance = (grid - centre[:, :, None, None]).float().norm(dim=-1)  # (count, T, H, W)
    inside = (radius - distance + 0.5).clamp(0, 1)[:, None]
    colour, ground = torch.rand(2, count, 3, 1, 1, 1, generator=generator) * 2 - 1
    return ground + (colour - ground) * inside


def trained(padding: str, seed: int, steps: int) -> VQGAN3d:
    """A tokenizer after its training."""
    torch.manual_seed(seed)
    generator, loss = torch.Generator().manual_seed(seed), VqganLoss()
    tokenizer = VQGAN3d(
        base_width=8, downsample=(4, 4, 4), codes=128, code_width=32, padding=padding, restart_below=0.5
    ).train()
    judges = PatchDiscriminator(2, width=4), PatchDiscriminator(3, width=4)  # which never join
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=1e-3, betas=(0.5, 0.9))
    tokenizer.quantizer.begin(tokenizer.vectors(discs(BATCH, generator)).detach(), generator)
    for _ in range(steps):
        clips = discs(BATCH, generator)
        coded = tokenizer(clips)
        total, _ = loss(coded, clips, torch.zeros(BATCH, dtype=torch.long), *judges, joined=False)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        tokenizer.quantizer.learn(coded.vectors, coded.quantized.ids, generator)
    return tokenizer.eval()


def probe(features: Tensor, seed: int) -> float:
    """Share of unseen latent frames whose place a linear probe names: features (clips, 4, D), the first half to learn on."""
    torch.manual_seed(seed)
    clips, places, width = features.shape
    features = (features - features.mean((0, 1))) / features.std((0, 1)).clamp(min=1e-3)
    truth = torch.arange(places).expand(clips, places)
    learn, test = slice(0, clips // 2), slice(clips // 2, clips)
    layer = nn.Linear(width, places)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(layer(features[learn]).flatten(0, 1), truth[learn].flatten()).backward()
        optimizer.step()
    return (layer(features[test]).argmax(-1) == truth[test]).float().mean().item()


@torch.no_grad()
def measured(tokenizer: VQGAN3d, seed: int) -> dict[str, float]:
    """What a trained tokenizer's ids say of the time."""
    generator = torch.Generator().manual_seed(1000 + seed)
    clips = discs(1024, generator)
    ids = torch.cat([tokenizer.encode(part) for part in clips.split(64)])
    decoded = torch.cat([tokenizer.decode(part) for part in ids[:64].split(16)])
    still = tokenizer.encode(discs(64, generator, still=True))
    codes = tokenizer.codes(ids).transpose(1, 2).flatten(2)  # (clips, 4, D h w)
    histograms = F.one_hot(ids.flatten(2), len(tokenizer.quantizer.codes)).sum(2).float()
    with torch.enable_grad():
        found = {"probe": probe(codes, seed), "probe_histogram": probe(histograms, seed)}
    return {
        **found,
        "still": (still[:, 1:] != still[:, :1]).float().mean().item(),
        "psnr": (10 * torch.log10(4 / (decoded - clips[:64]).square().mean())).item(),
        "codes_used": float(len(ids.unique())),
    }


def reached(row: dict[str, dict[str, float]]) -> bool:
    """Whether a seed is on the right side of all thresholds."""
    zeros, repeated = row["constant"], row["replicate"]
    apart = zeros["probe"] >= THRESHOLDS["probe_zeros"] and repeated["probe"] <= THRESHOLDS["probe_replicate"]
    return apart and zeros["still"] >= THRESHOLDS["still_zeros"] and repeated["still"] <= THRESHOLDS["still_replicate"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    rows = []
    for seed in given.seeds:
        rows.append(
            {padding: measured(trained(padding, seed, given.steps), seed) for padding in ("constant", "replicate")}
        )
        for padding, row in rows[-1].items():
            print(
                f"seed {seed}  {padding:10}" + "".join(f"  {name} {value:.3f}" for name, value in row.items()),
                flush=True,
            )
    sides = [reached(row) for row in rows]
    verdict = "holds" if all(sides) else "inconclusive" if any(sides) else "does not hold"
    print(verdict)
    result = {
        "name": "tats_padding",
        "statement": STATEMENT,
        "verdict": verdict,
        "thresholds": THRESHOLDS,
        "seeds": given.seeds,
        "steps": given.steps,
        "chance": 0.25,
        "rows": rows,
    }
    write_result(given.out, result)


if __name__ == "__main__":
    main()

"""Published checkpoints of TATS (songweige/TATS) to pipeline folders that `longtake.load` takes.

A file of a transformer holds its tokenizer as well, so one file makes a pipeline, and two a hierarchy. The networks
compute the same numbers; what differs is this:

- Queries, keys and values are one matrix here.
- A model without a condition starts from token 0 of the video; here the start token is an id of its own, with that
  token's embedding and with a logit that is never drawn.
- A GPT-B has no position for the last token of the far end, and is read without it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from longtake.autoregressive.tats.pipeline import TatsPipeline
from longtake.backbones.gpt import GPT
from longtake.errors import BadInput
from longtake.pipelines.importing import check_new, read_weights, write_pipeline
from longtake.tokenizers.vqgan3d import VQGAN3d

CLIP_WORDS = 49408  # ids of CLIP's pieces of words, which the published text condition reads
SPACING = 4

TOKENIZER = (
    (r"(encoder|decoder)\.conv_blocks\.(\d+)\.(?:down|up)\.convt?\.", r"\1.levels.\2.0."),
    (r"(encoder|decoder)\.conv_blocks\.(\d+)\.res1?\.", r"\1.levels.\2.1."),
    (r"(encoder|decoder)\.conv_blocks\.(\d+)\.res2\.", r"\1.levels.\2.2."),
    (r"(levels\.\d+\.[12]\.conv[12])\.conv\.", r"\1."),
    (r"encoder\.conv_first\.conv\.", "encoder.conv_in."),
    (r"decoder\.conv_last\.conv\.", "decoder.conv_out."),
    (r"encoder\.final_block\.0\.", "encoder.norm_out."),
    (r"decoder\.final_block\.0\.", "decoder.norm_in."),
    (r"(pre|post)_vq_conv\.conv\.", r"\1_quant."),
    (r"codebook\.embeddings", "quantizer.codes"),
    (r"codebook\.N", "quantizer.counts"),
    (r"codebook\.z_avg", "quantizer.sums"),
)
"""Patterns at the beginning of a published name -> ours, tried in order."""
APART = ("image_discriminator.", "video_discriminator.", "perceptual_model.")
"""What a tokenizer's file holds besides."""

TRANSFORMER = {
    "tok_emb": "embed",
    "ln_f": "norm",
    "head": "head",
    "ln1": "attention_norm",
    "ln2": "ffn_norm",
    "attn.proj": "attention.out",
    "mlp.0": "ffn.up",
    "mlp.2": "ffn.down",
}


def tokenizer_from_official(
    weights: Mapping[str, Tensor], *, downsample: Sequence[int] = (4, 8, 8), padding: str = "replicate"
) -> VQGAN3d:
    """A `VQGAN3d` of a published checkpoint.

    Args:
        weights: name -> tensor.
        downsample, padding: which the file does not tell.

    Raises:
        BadInput: names or shapes that are not those of such a tokenizer.
    """
    kept = {name: value for name, value in weights.items() if not name.startswith(APART)}
    try:
        first, book = kept["encoder.conv_first.conv.weight"], kept["codebook.embeddings"]
    except KeyError as error:
        raise BadInput(f"{error} is missing; give a VQGAN of songweige/TATS") from None
    norm = "batch" if "encoder.final_block.0.running_mean" in kept else "group"
    levels = {name.split(".")[2] for name in kept if name.startswith("encoder.conv_blocks.")}
    if len(levels) != int(math.log2(max(downsample))):
        raise BadInput(
            f"a VQGAN of {len(levels)} levels does not downsample by {tuple(downsample)}; give what it was trained with"
        )
    made = VQGAN3d(first.shape[1], first.shape[0], tuple(downsample), *book.shape, padding=padding, norm=norm)
    renamed = {_renamed(name): value for name, value in kept.items()}
    _fill(made, {**renamed, "quantizer.begun": torch.ones((), dtype=torch.bool)}, "VQGAN")
    return made.eval()


def gpt_from_official(weights: Mapping[str, Tensor], *, start: bool, heads: int = 16) -> GPT:
    """A `GPT` of a published checkpoint.

    Args:
        weights: name -> tensor, without the tokenizer's.
        start: whether it is one without a condition, whose start token becomes an id of its own, 0.
        heads: which the file does not tell.

    Raises:
        BadInput: names or shapes that are not those of such a transformer.
    """
    own = {
        name.removeprefix("transformer."): value for name, value in weights.items() if not name.endswith("attn.mask")
    }
    try:
        positions = own.pop("pos_emb")[0]
        words, head = own.pop("tok_emb.weight"), own.pop("head.weight")
    except KeyError as error:
        raise BadInput(f"{error} is missing; give a transformer of songweige/TATS") from None
    if start:
        words, head = torch.cat([words[:1], words]), torch.cat([torch.zeros_like(head[:1]), head])
    made = {"positions": positions, "embed.weight": words, "head.weight": head}
    if "vtokens_pos_emb" in own:
        made["places"] = own.pop("vtokens_pos_emb")[0]
    depth = len({name.split(".")[1] for name in own if name.startswith("blocks.")})
    for block in range(depth):
        for kind in ("weight", "bias"):
            names = [f"blocks.{block}.attn.{part}.{kind}" for part in ("query", "key", "value")]
            if all(name in own for name in names):
                made[f"blocks.{block}.attention.qkv.{kind}"] = torch.cat([own.pop(name) for name in names])
    for name, value in own.items():
        stem, _, kind = name.rpartition(".")
        block, inner = re.fullmatch(r"(blocks\.\d+\.)?(.*)", stem).groups()  # pyright: ignore[reportOptionalMemberAccess]
        made[f"{block or ''}{TRANSFORMER.get(inner, inner)}.{kind}"] = value
    grid = tuple(made["places"].shape[:3]) if "places" in made else None
    gpt = GPT(len(words), len(positions), words.shape[1], depth, heads, grid=grid)
    _fill(gpt, made, "transformer")
    return gpt.eval()


def import_tats(
    source: str | Path,
    out: str | Path,
    *,
    interpolator: str | Path | None = None,
    classes: Sequence[str] = (),
    heads: int = 16,
    frames: int = 16,
    size: tuple[int, int] = (128, 128),
    fps: float = 8.0,
) -> Path:
    """Write a published TATS as a pipeline folder.

    Args:
        source: checkpoint (.ckpt, .pt or .safetensors) of a base, or with `interpolator` of the key frames (GPT-A).
        out: folder to write, not there yet.
        interpolator: checkpoint of GPT-B.
        classes: names of the classes, in order; default: their numbers.
        heads: of the transformers.
        frames, size, fps: of the clips that the base was trained on; size is (height, width). With an interpolator the
            frames are those of as many latent frames as the key frames' window reaches over.

    Raises:
        BadInput: not such checkpoints, or two with other tokenizers. BadOutput: `out` is there already.
    """
    check_new(out)
    weights = read_weights(source)
    tokenizer = tokenizer_from_official(_inside(weights, "first_stage_model."))
    codes, time = tokenizer.config.codes, tokenizer.stride[0]
    conditions = _words(weights) - codes
    if conditions == CLIP_WORDS:
        raise BadInput(f"{Path(source).name} reads CLIP's pieces of words, for which there is no pipeline here")
    ears = _inside(weights, "cond_stage_model.")
    if ears and conditions:
        raise BadInput(f"{Path(source).name} reads sound; import its networks in Python")
    if classes and len(classes) != conditions:
        raise BadInput(f"{len(classes)} names of classes were given and {Path(source).name} has {conditions} classes")
    second = None
    if interpolator is not None:
        others = read_weights(interpolator)
        book = tokenizer_from_official(_inside(others, "first_stage_model."))
        if book.content_hash() != tokenizer.content_hash():
            raise BadInput(f"{Path(interpolator).name} was trained with another tokenizer than {Path(source).name}")
        second = gpt_from_official(_inside(others, "transformer."), start=not conditions, heads=heads)
        window = tokenizer.latent_shape(frames, *size)[0]
        frames = (SPACING * (window - 1) + 1) * time
    pipe = TatsPipeline(
        tokenizer,
        gpt_from_official(_inside(weights, "transformer."), start=not conditions, heads=heads),
        second,
        condition="class" if conditions else "none",
        classes=list(classes) or [str(number) for number in range(conditions)],
        spacing=1 if second is None else SPACING,
        fps=fps,
        clip_size=[frames, *size],
        drawing={"context": 1},
    )
    return write_pipeline(pipe, out)


def _inside(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _words(weights: Mapping[str, Tensor]) -> int:
    if "transformer.tok_emb.weight" not in weights:
        raise BadInput("'transformer.tok_emb.weight' is missing; give a transformer of songweige/TATS")
    return len(weights["transformer.tok_emb.weight"])


def _renamed(name: str) -> str:
    for pattern, ours in TOKENIZER:
        name = re.sub(rf"^{pattern}" if "levels" not in pattern else pattern, ours, name)
    return name


def _fill(network: torch.nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise BadInput(
            f"names or shapes are not those of a {what} of songweige/TATS: {str(error).splitlines()[-1].strip()}"
        ) from None

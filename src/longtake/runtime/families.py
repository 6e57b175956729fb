"""The video transformers of diffusers 0.42 as methods see them, by the names of their classes.

Text refiners (HunyuanVideo) and pooled-text attention (Mochi) are no blocks. LTX packs its tokens, and is told their box
in the call; Mochi attends once for each sample, with its valid words alone.
"""

from typing import Any

from longtake.runtime.nouns import TokenGrid
from longtake.runtime.views import BlockForm, Blocks, Family, Given, Part

CROSS = (Part("attn1", "attn.self"), Part("attn2", "attn.cross"))


def _patched(network: Any, given: Given, frames_first: bool = False) -> TokenGrid:
    """The box of latents (B, C, T, H, W), or (B, T, C, H, W) when `frames_first`, cut into the network's patches."""
    shape = given["hidden_states"].shape
    frames, height, width = (shape[1], *shape[3:]) if frames_first else shape[2:]
    config = network.config
    space, time = config.patch_size, config.get("patch_size_t") or 1
    if isinstance(space, list | tuple):
        time, space = space[0], space[1]
    return TokenGrid(frames // time, height // space, width // space)


WAN = Family("Wan", (Blocks("blocks", BlockForm((*CROSS, Part("ffn", "ffn")))),), _patched)

HUNYUAN_VIDEO = Family(
    "HunyuanVideo",
    (
        Blocks(
            "transformer_blocks",
            BlockForm(
                (Part("attn", "attn.joint", "joint"), Part("ff", "ffn"), Part("ff_context", "ffn", "text")),
                text="encoder_hidden_states",
                stream="joint",
            ),
        ),
        Blocks(
            "single_transformer_blocks",
            BlockForm(  # attention and the first half of the MLP meet in one projection, whose output is gated
                (Part("proj_out", "ffn", "joint", feeders=("attn", "proj_mlp", "act_mlp")),),
                attentions=(Part("attn", "attn.joint", "joint"),),
                text="encoder_hidden_states",
                stream="joint",
            ),
        ),
    ),
    _patched,
    text_at="last",
)

COGVIDEOX = Family(
    "CogVideoX",
    (
        Blocks(
            "transformer_blocks",
            BlockForm(
                (Part("attn1", "attn.joint", "joint"), Part("ff", "ffn", "joint")),
                text="encoder_hidden_states",
                stream="joint",
            ),
        ),
    ),
    lambda network, given: _patched(network, given, frames_first=True),
    text_at="first",
)

LATTE = Family(
    "Latte",
    (
        Blocks(
            "transformer_blocks",
            BlockForm(
                (
                    Part("attn1", "attn.self", "spatial"),
                    Part("attn2", "attn.cross", "spatial"),
                    Part("ff", "ffn", "spatial"),
                ),
                layout="spatial",
                stream="spatial",
            ),
        ),
        Blocks(
            "temporal_transformer_blocks",
            BlockForm(
                (Part("attn1", "attn.self", "temporal"), Part("ff", "ffn", "temporal")),
                layout="temporal",
                stream="temporal",
            ),
        ),
    ),
    _patched,
    interleaved=True,
    first_safe=2,  # positions in time are added between the first two blocks
)

LTX = Family(
    "LTX",
    (Blocks("transformer_blocks", BlockForm((*CROSS, Part("ff", "ffn")))),),
    lambda network, given: TokenGrid(*(int(given[name]) for name in ("num_frames", "height", "width"))),
)

MOCHI = Family(
    "Mochi",
    (
        Blocks(
            "transformer_blocks",
            BlockForm(
                (Part("attn1", "attn.joint", "joint"), Part("ff", "ffn"), Part("ff_context", "ffn", "text")),
                text="encoder_hidden_states",
                stream="joint",
            ),
        ),
    ),
    _patched,
    text_at="last",
    rising=True,
    stage=lambda network, given, grid: tuple(given["encoder_attention_mask"].sum(1).tolist()),
)

ALLEGRO = Family("Allegro", (Blocks("transformer_blocks", BlockForm((*CROSS, Part("ff", "ffn")))),), _patched)

FAMILIES: dict[str, Family] = {
    "WanTransformer3DModel": WAN,
    "HunyuanVideoTransformer3DModel": HUNYUAN_VIDEO,
    "CogVideoXTransformer3DModel": COGVIDEOX,
    "LatteTransformer3DModel": LATTE,
    "LTXVideoTransformer3DModel": LTX,
    "MochiTransformer3DModel": MOCHI,
    "AllegroTransformer3DModel": ALLEGRO,
}
"""Class name -> family."""

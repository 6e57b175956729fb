"""TATS: long videos by transformers that were trained on short clips of a time-agnostic tokenizer's ids.

Paper: "Long Video Generation with Time-Agnostic VQGAN and Time-Sensitive Transformer" (ECCV 2022, arXiv 2204.03638).

    tokenizer    16 frames of 128x128 -> 4x16x16 ids whose meaning does not depend on where in the clip they are
                 (`longtake.tokenizers.vqgan3d`)
    base         a GPT over windows of 4 latent frames; sliding one frame at a time, it goes on for ever (`windows`)
    hierarchy    GPT-A, trained on every 4th latent frame of 64-frame clips, writes key frames; GPT-B, trained on 5 in a
                 row, fills the gaps, all at once: errors add up over four times fewer steps (`hierarchy`)
    conditions   none, class, text, sound: tokens in front of the video's (`layout`)
"""

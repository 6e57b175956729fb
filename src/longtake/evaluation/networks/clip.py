"""Text scores and frame features of CLIP, for users who have its weights as a folder of transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from longtake.errors import BadInput
from longtake.pipelines.records import weights_hash

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels in [0, 1] that CLIP was trained on."""


class ClipScorer:
    """Cosine of CLIP's picture and text features.

    Pictures are resized so that the shorter side fits (bicubic, antialias), cropped in the centre and normalised.

    Args:
        folder: with config.json, weights and tokenizer files. device: where it computes.

    Raises:
        BadInput: a folder that is no CLIP.
    """

    def __init__(self, folder: str | Path, device: torch.device | str = "cpu") -> None:
        from transformers import AutoTokenizer, CLIPModel

        if not (Path(folder) / "config.json").is_file():
            raise BadInput(f"CLIP '{folder}' is no folder of a transformers model: config.json is missing.")
        try:
            self._model = CLIPModel.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
            self._words = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BadInput(f"CLIP '{folder}' does not load: {line}") from None
        self._model.eval().requires_grad_(False).to(device)
        self.device = torch.device(device)
        self.hash = weights_hash({"clip": self._model})
        config: Any = self._model.config
        self.side, self.width = int(config.vision_config.image_size), int(config.projection_dim)
        self._longest = int(config.text_config.max_position_embeddings)

    @torch.no_grad()
    def pictures(self, frames: Tensor) -> Tensor:
        """Unit features float32 (B, D) of frames uint8 (B, 3, H, W)."""
        pixels = frames.to(self.device).float() / 255
        scale = self.side / min(pixels.shape[-2:])
        size = [max(self.side, round(side * scale)) for side in pixels.shape[-2:]]
        if size != list(pixels.shape[-2:]):
            pixels = interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        top, left = (size[0] - self.side) // 2, (size[1] - self.side) // 2
        pixels = pixels[..., top : top + self.side, left : left + self.side]
        mean, deviation = (pixels.new_tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
        return _unit(self._model.get_image_features(pixel_values=(pixels - mean) / deviation))

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Unit features float32 (B, D) of prompts; words beyond CLIP's length are cut off."""
        cut = {"truncation": True, "max_length": self._longest}
        words = self._words(list(prompts), padding=True, return_tensors="pt", **cut)
        mask = words["attention_mask"].to(self.device)
        return _unit(self._model.get_text_features(input_ids=words["input_ids"].to(self.device), attention_mask=mask))

    def score(self, clips: Tensor, prompts: Sequence[str]) -> Tensor:
        """Mean over frames of the cosine with the prompt, (B,), of clips uint8 (B, 3, T, H, W): CLIPSIM, without x100."""
        frames = clips.transpose(1, 2)
        seen = self.pictures(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return (seen * self.texts(prompts)[:, None]).sum(-1).mean(1)


def _unit(found: object) -> Tensor:
    """transformers gives the features, or a record that holds them."""
    features = getattr(found, "pooler_output", found)
    assert isinstance(features, Tensor)
    return normalize(features.float(), dim=-1).cpu()

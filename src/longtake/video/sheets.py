"""Pictures of clips for people to look at: contact sheets, animated GIF/WebP, strips of frames."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from longtake.errors import BadInput
from longtake.video.clip import Clip, to_uint8
from longtake.video.images import save_image
from longtake.video.writing import check_folder, write_bytes

_PAPER, _INK = (255, 255, 255), (0, 0, 0)


def contact_sheet(
    clips: Clip | Tensor | Sequence[Clip | Tensor],
    path: str | Path | None = None,
    *,
    columns: int = 8,
    captions: Sequence[str] | None = None,
    height: int | None = None,
    gap: int = 2,
) -> Image.Image:
    """One row per clip, its frames from left to right, as an RGB picture; saved when ``path`` is given.

    Args:
        clips: a Clip or tensor (B, C, T, H, W) in [-1, 1] (a row for each of the batch), or several of them.
        columns: frames shown of each clip at most, evenly spread, the first and last always among them.
        captions: a line of text above each row, cut to the row's width.
        height: rows of pixels for each frame; None keeps the clips' own.
        gap: white pixels between frames.
    """
    batches = [clips] if isinstance(clips, Clip | Tensor) else list(clips)
    rows = [row for batch in batches for row in _to_images(batch)]
    if not rows:
        raise BadInput("a contact sheet needs at least one clip.")
    if captions is not None and len(captions) != len(rows):
        raise BadInput(f"{len(captions)} captions came with {len(rows)} clips; one each.")
    strips = [_strip(_spread(row, columns), height, gap) for row in rows]
    sheet = _stack(strips, captions, gap)
    if path is not None:
        save_image(sheet, Path(path))
    return sheet


def write_strip(clip: Clip | Tensor, path: str | Path, *, fps: float | None = None, columns: int | None = None) -> None:
    """Write a clip to look at: animated for .gif and .webp, frames side by side for .png and .jpg.

    Args:
        clip: a Clip or tensor of batch 1 (a tensor may also be (C, T, H, W)), in [-1, 1].
        fps: playing speed of an animation; the clip's own when None, 8 for a tensor. GIF counts in 1/100 s.
        columns: frames in a still strip at most, evenly spread; None shows all.

    Raises:
        BadInput: a batch, or another suffix. BadOutput: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".gif", ".webp", ".png", ".jpg", ".jpeg"):
        raise BadInput(f"{path}: a strip is .gif, .webp, .png or .jpg, not '{path.suffix}'.")
    check_folder(path)
    images = _to_images(clip[None] if isinstance(clip, Tensor) and clip.ndim == 4 else clip)
    if len(images) != 1:
        raise BadInput(f"a strip shows one clip and this batch has {len(images)}; contact_sheet shows several.")
    if suffix in (".gif", ".webp"):
        rate = fps or (clip.fps if isinstance(clip, Clip) else 8.0)
        write_bytes(path, _animation(images[0], suffix, rate))
    else:
        save_image(_strip(_spread(images[0], columns or len(images[0])), None, 2), path)


def _to_images(clip: Clip | Tensor) -> list[list[Image.Image]]:
    pixels = clip.pixels if isinstance(clip, Clip) else Clip(clip, 1.0).pixels
    if pixels.shape[1] not in (1, 3):
        raise BadInput(f"a picture has 3 channels or 1; this clip has {pixels.shape[1]}.")
    frames = to_uint8(pixels.expand(-1, 3, -1, -1, -1)).cpu().numpy()
    return [[Image.fromarray(frame) for frame in row] for row in frames]


def _spread(images: list[Image.Image], count: int) -> list[Image.Image]:
    if count >= len(images):
        return images
    return [images[i] for i in np.linspace(0, len(images) - 1, max(count, 1)).round().astype(int)]


def _strip(images: list[Image.Image], height: int | None, gap: int) -> Image.Image:
    if height is not None:
        size = (max(1, round(images[0].width * height / images[0].height)), height)
        images = [image.resize(size, Image.Resampling.LANCZOS) for image in images]
    width, tall = images[0].size
    strip = Image.new("RGB", (len(images) * (width + gap) - gap, tall), _PAPER)
    for i, image in enumerate(images):
        strip.paste(image, (i * (width + gap), 0))
    return strip


def _stack(strips: list[Image.Image], captions: Sequence[str] | None, gap: int) -> Image.Image:
    line = 14 if captions else 0
    width = max(strip.width for strip in strips)
    sheet = Image.new("RGB", (width, sum(strip.height + gap + line for strip in strips) - gap), _PAPER)
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(11), 0
    for i, strip in enumerate(strips):
        if captions:
            draw.text((1, top), _fit(captions[i], font, width - 2), fill=_INK, font=font)
        sheet.paste(strip, (0, top + line))
        top += strip.height + gap + line
    return sheet


def _fit(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    text = " ".join(text.split())[:500]
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text


def _animation(images: list[Image.Image], suffix: str, fps: float) -> bytes:
    # Whole centiseconds whose sum stays right: 8 fps is 12, 13, 12, 13, ... and not 12 throughout.
    tick = 10 if suffix == ".gif" else 1
    ends = [round((i + 1) * 1000 / fps / tick) * tick for i in range(len(images))]
    durations = [max(tick, end - start) for start, end in zip([0, *ends], ends, strict=False)]
    buffer = BytesIO()
    kind = {".gif": "GIF", ".webp": "WEBP"}[suffix]
    quality = {"quality": 90} if suffix == ".webp" else {}
    images[0].save(buffer, format=kind, save_all=True, append_images=images[1:], duration=durations, loop=0, **quality)
    return buffer.getvalue()

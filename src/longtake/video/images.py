"""Still images through Pillow: upright, RGB, alpha on black."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from longtake.errors import BadImage, BadInput
from longtake.video.clip import from_uint8, to_uint8
from longtake.video.writing import write_bytes

IMAGE_SUFFIXES = frozenset(".jpg .jpeg .png .webp .bmp .tif .tiff .ppm".split())


def read_image(path: str | Path) -> Tensor:
    """Read an image as float32 (3, H, W) in [-1, 1].

    EXIF rotation is applied, transparency is composited on black, 16-bit greys are scaled (not clipped), and of an
    animation the first frame is taken. Raises BadImage naming the file and the reason.
    """
    return from_uint8(torch.from_numpy(decode_image(Path(path)))[None])[:, 0]


def write_image(pixels: Tensor, path: str | Path) -> None:
    """Write (3, H, W) or (1, H, W) in [-1, 1] as the format that the suffix names; BadOutput when that fails."""
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        raise BadInput(f"an image has shape (3 or 1, height, width); this one has {tuple(pixels.shape)}.")
    save_image(Image.fromarray(to_uint8(pixels.expand(3, -1, -1)[:, None])[0].cpu().numpy()), Path(path))


def save_image(image: Image.Image, path: Path) -> None:
    """Encode with Pillow in memory, then write in one step."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise BadInput(f"{path}: no image format is called '{path.suffix}'; use .png, .jpg or .webp.")
    buffer = BytesIO()
    image.save(buffer, format=kind, quality=95)
    write_bytes(path, buffer.getvalue())


def decode_image(file: Path | BytesIO, name: str | None = None) -> np.ndarray:
    """Decode to upright uint8 (H, W, 3) RGB; ``name`` is what messages call a file that is not on disk."""
    name = name or str(file)
    if isinstance(file, Path) and not file.exists():
        raise BadImage(f"{name} does not exist.")
    if isinstance(file, Path) and not file.is_file():
        raise BadImage(f"{name} is not a file.")
    try:
        with Image.open(file) as image:
            return np.array(_as_rgb(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError:
        raise BadImage(f"{name} is not an image that Pillow can read.") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BadImage(f"{name} cannot be read as an image: {error}.") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = Image.fromarray((np.asarray(image).astype(np.float64) / 257).round().astype(np.uint8))
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("RGB")

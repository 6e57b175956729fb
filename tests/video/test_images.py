"""Still images: upright, in range, and refused by name when broken."""

import numpy as np
import pytest
import torch
from PIL import Image

from longtake.errors import BadImage, BadInput, BadOutput
from longtake.video import read_image, write_image


def picture():
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def test_values_and_layout(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert pixels.shape == (3, 12, 20)
    assert pixels.dtype == torch.float32
    assert np.allclose(pixels.movedim(0, -1).numpy(), picture() / 127.5 - 1, atol=1e-6)


def test_write_then_read(tmp_path):
    pixels = torch.rand(3, 9, 7) * 2 - 1
    write_image(pixels, tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") - pixels).abs().max() <= 1 / 255 + 1e-6
    write_image(pixels[:1], tmp_path / "g.png")
    assert torch.equal(read_image(tmp_path / "g.png")[0], read_image(tmp_path / "g.png")[2])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    """What a camera stores turned or mirrored, with the tag that says so, comes out as the scene was."""
    upright = Image.fromarray(picture())
    method = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if method is None else upright.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    pixels = read_image(tmp_path / "a.png")
    assert np.allclose(pixels.movedim(0, -1).numpy(), picture() / 127.5 - 1, atol=1e-6)


def test_alpha_is_composited_on_black(tmp_path):
    rgba = np.full((4, 6, 4), 200, np.uint8)
    rgba[:, :2, 3], rgba[:, 2:4, 3], rgba[:, 4:, 3] = 0, 128, 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    levels = ((read_image(tmp_path / "a.png") + 1) * 127.5).round()
    assert levels[0, 0].tolist() == pytest.approx([0, 0, 100, 100, 200, 200], abs=1)


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "p.png", transparency=0)
    levels = ((read_image(tmp_path / "p.png") + 1) * 127.5).round()
    assert levels[:, 0, 0].tolist() == [0, 0, 0]
    assert levels[:, 2, 2].tolist() == [0, 255, 0]


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(tmp_path / "g.png")
    levels = ((read_image(tmp_path / "g.png") + 1) * 127.5).round()
    assert levels[1, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "LA"])
def test_other_modes(tmp_path, mode):
    name = "a.jpg" if mode == "CMYK" else "a.png"
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(tmp_path / name)
    assert read_image(tmp_path / name).min() > 0.97


def refusal(path):
    with pytest.raises(BadImage) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp"])
def test_a_truncated_image(tmp_path, name):
    Image.fromarray(picture()).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
    refusal(tmp_path / name)


def test_what_is_no_image(tmp_path):
    (tmp_path / "t.png").write_text("no image")
    (tmp_path / "e.png").touch()
    assert "not an image" in refusal(tmp_path / "t.png")
    assert "not an image" in refusal(tmp_path / "e.png")
    assert "does not exist" in refusal(tmp_path / "none.png")
    assert "not a file" in refusal(tmp_path)


def test_an_image_that_would_fill_the_memory(tmp_path, monkeypatch):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    refusal(tmp_path / "a.png")


def test_writing_elsewhere_or_otherwise_is_refused(tmp_path):
    with pytest.raises(BadOutput, match="does not exist"):
        write_image(torch.zeros(3, 4, 4), tmp_path / "none" / "a.png")
    with pytest.raises(BadInput, match="no image format"):
        write_image(torch.zeros(3, 4, 4), tmp_path / "a.xyz")
    with pytest.raises(BadInput, match="shape"):
        write_image(torch.zeros(1, 3, 4, 4), tmp_path / "a.png")

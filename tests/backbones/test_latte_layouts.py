import pytest
import torch
from latte_recorded import SIZES, awake, fill, latte_1, noise, official, recorded

from longtake.backbones.latte import Latte
from longtake.backbones.latte_layouts import (
    from_diffusers,
    from_official,
    official_config,
    start_from_images,
    to_diffusers,
    to_official,
)
from longtake.errors import BadInput

TIMES = torch.tensor([3, 720])


def ours(x: torch.Tensor) -> torch.Tensor:
    """The official axes (B, F, C, H, W) in our order."""
    return x.transpose(1, 2)


def close(made: torch.Tensor, name: str) -> None:
    torch.testing.assert_close(ours(made), recorded()[name], atol=1e-5, rtol=1e-5)


def test_outputs_are_the_official_codes():
    x = ours(fill((2, 4, 4, 8, 8), "latents", 1.5))
    text = fill((2, 77, 768), "text", 1.0)
    with torch.no_grad():
        close(official()(x, TIMES), "unconditional")
        close(official(classes=5)(x, TIMES, labels=torch.tensor([1, 5])), "class")
        close(official(text="vector")(x, TIMES, text), "text")


def test_outputs_with_single_images_are_the_official_codes():
    x = ours(fill((2, 6, 4, 8, 8), "with images", 1.5))
    with torch.no_grad():
        close(official()(x, TIMES, images=2), "images")
        labels, own = torch.tensor([1, 4]), torch.tensor([[2, 3], [4, 0]])
        close(official(classes=5)(x, TIMES, labels=labels, image_labels=own, images=2), "images_class")


@pytest.mark.parametrize("changes", [{}, {"classes": 3}, {"text": "vector"}, {"learned_variance": False, "patch": 1}])
def test_official_layout_there_and_back(changes):
    model = awake(Latte(**{**SIZES, **changes}))
    weights = to_official(model, frames=4, side=8)
    assert weights["pos_embed"].shape == (1, 64 // model.config.patch**2, 16)
    assert weights["temp_embed"].shape == (1, 4, 16)
    assert official_config(weights, heads=2).items() <= dict(model.config).items()
    again = from_official(weights, heads=2).state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())


def test_files_that_are_something_else_are_refused():
    with pytest.raises(BadInput, match="no official Latte checkpoint"):
        from_official({"weight": torch.zeros(2)})
    weights = to_official(Latte(**SIZES), frames=4, side=8)
    with pytest.raises(BadInput, match="heads is not known"):
        from_official(weights)
    with pytest.raises(BadInput, match=r"'decoder\.weight' is no parameter"):
        from_official({**weights, "decoder.weight": torch.zeros(1)}, heads=2)
    del weights["blocks.2.attn.qkv.bias"]
    with pytest.raises(BadInput, match="not the weights of an official Latte"):
        from_official(weights, heads=2)
    with pytest.raises(BadInput, match="variant 2 has no official layout"):
        to_official(Latte(**SIZES, variant="2"))


@pytest.mark.parametrize(("side", "frames"), [(16, 4), (128, 2)])
def test_outputs_are_those_of_diffusers(side, frames):
    theirs = awake(latte_1(sample_size=side, video_length=frames))
    model = from_diffusers(theirs.config, theirs.state_dict()).eval()
    x, text = noise(2, 4, frames, side, side), noise(2, 3, 12, seed=1)
    with torch.no_grad():
        wanted = theirs(x, TIMES, text, return_dict=False)[0]
        torch.testing.assert_close(model(x, TIMES, text), wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-5)


def test_diffusers_layout_there_and_back():
    theirs = awake(latte_1())
    back = to_diffusers(from_diffusers(theirs.config, theirs.state_dict()))
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in theirs.state_dict().items())
    with pytest.raises(BadInput, match="only Latte-1"):
        to_diffusers(Latte(**SIZES))
    with pytest.raises(BadInput, match="norm_type is 'layer_norm'"):
        from_diffusers({**theirs.config, "norm_type": "layer_norm"}, {})


def test_an_image_model_starts_a_video_model_as_itself(monkeypatch):
    image, model = awake(Latte(**SIZES, variant="spatial", classes=7)), Latte(**SIZES, temporal_gain=True)
    assert start_from_images(model, to_dit(image)) == 2
    # Blocks 0 and 2 of the image model stand in the same places of the video model; its blocks over time pass all on.
    x = noise(1, 4, 3, 8, 8)
    monkeypatch.setattr(image, "_moments", lambda frames, images, device: torch.zeros(frames, 1, 16))
    with torch.no_grad():
        image.class_embed.weight.zero_()
        for skipped in (1, 3):
            image.blocks[skipped].projection.linear.weight.zero_()
            image.blocks[skipped].projection.linear.bias.zero_()
        frames = [image(x[:, :, f : f + 1], TIMES[:1]) for f in range(3)]
        torch.testing.assert_close(model(x, TIMES[:1]), torch.cat(frames, 2), atol=1e-5, rtol=1e-5)


def test_an_image_model_of_another_size_is_refused():
    weights = to_dit(Latte(**{**SIZES, "depth": 2}, variant="spatial"))
    with pytest.raises(BadInput, match="2 blocks cannot fill 4 spatial blocks"):
        start_from_images(Latte(**{**SIZES, "depth": 8}), weights)
    with pytest.raises(BadInput, match="match the sizes"):
        start_from_images(Latte(**{**SIZES, "width": 32, "depth": 2}), weights)


def to_dit(image: Latte) -> dict[str, torch.Tensor]:
    """A spatial network in DiT's layout, which is that of an official Latte's blocks."""
    twin = Latte(**{**SIZES, "depth": len(image.blocks)}, classes=image.config.classes)
    names = {name: name.replace("attentions.time", "attentions.space") for name in twin.state_dict()}
    twin.load_state_dict({name: image.state_dict()[source] for name, source in names.items()})
    return to_official(twin, frames=1, side=8)

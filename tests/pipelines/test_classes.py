import pytest
import torch
from diffusers import DDIMScheduler

from longtake.backbones.latte import Latte
from longtake.errors import BadInput, BadSize, UnknownName
from longtake.pipelines import VideoPipeline, load
from longtake.pipelines.classes import class_label
from longtake.pipelines.schedulers import scheduler_named
from longtake.tokenizers.causal_vae import CausalVAE

NAMES = ["a ball bounces", "a cube spins"]


def small(predicts="velocity", names=NAMES, **changes):
    torch.manual_seed(0)
    latte = Latte(
        latent_channels=4,
        width=16,
        depth=2,
        heads=2,
        classes=len(names),
        learned_variance=predicts == "noise",
        **changes,
    )
    with torch.no_grad():
        for parameter in latte.parameters():
            parameter.normal_(std=0.2)
    scheduler = scheduler_named("euler")
    if predicts == "noise":
        scheduler = DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False)
    tokenizer = CausalVAE(latent_channels=4, base_width=8, per_frame=True)
    return VideoPipeline(
        tokenizer, latte, None, None, scheduler, classes=names, predicts=predicts, clip_size=[4, 32, 32]
    )


def test_a_class_by_its_name():
    assert class_label("A cube  spins".replace("  ", " "), NAMES) == 1
    assert class_label(" ", NAMES) == 2
    with pytest.raises(UnknownName, match=r"none called 'a cube spin'.*a cube spins"):
        class_label("a cube spin", NAMES)
    with pytest.raises(BadInput, match="unconditional"):
        class_label("a cube spins", [])
    with pytest.raises(BadInput, match="is a int"):
        class_label(3, NAMES)


@pytest.mark.parametrize("predicts", ["velocity", "noise"])
def test_a_class_makes_its_clip_of_the_trained_size_and_is_kept_in_a_folder(predicts, tmp_path):
    pipe = small(predicts)
    one, other = (pipe(name, steps=2, seed=1).clip.pixels for name in NAMES)
    assert one.shape == (1, 3, 4, 32, 32)
    assert not torch.equal(one, other)
    assert pipe(NAMES[0], frames=2, height=16, width=16, steps=1).clip.pixels.shape == (1, 3, 2, 16, 16)
    two = pipe(NAMES[0], steps=2, seed=0, count=2)
    torch.testing.assert_close(two.clip.pixels[1:], one, atol=1e-4, rtol=1e-4)
    pipe.save_pretrained(str(tmp_path))
    again = load(tmp_path)
    assert again.config.classes == NAMES and again.config.predicts == predicts
    torch.testing.assert_close(again(NAMES[0], steps=2, seed=1).clip.pixels, one, atol=1e-4, rtol=1e-4)
    assert again.weights() == pipe.weights()


def test_without_guidance_the_null_class_is_not_asked_for(monkeypatch):
    pipe = small()
    asked = []
    forward = pipe.transformer.forward
    monkeypatch.setattr(
        pipe.transformer,
        "forward",
        lambda *args, **named: asked.append(named["labels"].tolist()) or forward(*args, **named),
    )
    pipe(NAMES[1], steps=1, guidance=1.0)
    pipe(NAMES[1], steps=1, guidance=3.0)
    assert asked == [[1], [2, 1]]


def test_what_a_model_of_classes_does_not_take_is_refused():
    pipe = small()
    with pytest.raises(UnknownName, match="a cube spins"):
        pipe("a cube spin", steps=1)
    with pytest.raises(BadInput, match=r"image was given.*no frames"):
        pipe(NAMES[0], image=torch.zeros(3, 32, 32), steps=1)
    with pytest.raises(BadSize, match="1 names of classes come in and the transformer takes 2"):
        parts = pipe.components
        VideoPipeline(**parts, classes=["one"])

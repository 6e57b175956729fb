import pytest
import torch
from diffusers import DDIMScheduler, LattePipeline
from latte_recorded import SIZES, awake, latte_1, small_autoencoder
from transformers import T5Config, T5EncoderModel

from longtake.backbones.latte import Latte
from longtake.backbones.latte_layouts import to_official
from longtake.errors import BadInput, BadOutput, LongtakeError, UnknownModel
from longtake.pipelines import load
from longtake.pipelines.importing import import_latte, read_weights
from longtake.training.text_encoder import train_tokenizer


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    return small_autoencoder()


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("classes", [0, 3])
def test_an_official_checkpoint_becomes_a_pipeline(autoencoder, tmp_path, suffix, classes):
    autoencoder.save_pretrained(tmp_path / "vae")
    model = awake(Latte(**SIZES, classes=classes))
    weights, file = to_official(model, frames=4, side=8), tmp_path / f"ckpt.{suffix}"
    if suffix == "pt":
        torch.save({"model": {"x": torch.zeros(1)}, "ema": {f"module.{k}": v for k, v in weights.items()}}, file)
    else:
        from safetensors.torch import save_file

        save_file({name: value.contiguous() for name, value in weights.items()}, file)
    folder = import_latte(file, tmp_path / "out", autoencoder=tmp_path / "vae", heads=2, frames=4, size=(64, 64))
    pipe = load(folder)
    assert all(torch.equal(pipe.transformer.state_dict()[k], v) for k, v in model.state_dict().items())
    assert pipe.config.classes == [str(i) for i in range(classes)] and pipe.config.predicts == "noise"
    made = pipe("2" if classes else "", steps=2, guidance=2.0 if classes else 1.0)
    assert made.clip.pixels.shape == (1, 3, 4, 64, 64) and made.clip.pixels.isfinite().all()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["vae", file.name, "out"])  # nothing half-written


def test_the_text_to_video_latte_of_diffusers_gives_the_same_clip(autoencoder, tmp_path):
    words = train_tokenizer(["a red ball rolls", "a blue cube bounces"], vocab_size=300, max_length=24)
    encoder = T5EncoderModel(
        T5Config(vocab_size=len(words), d_model=12, d_kv=6, d_ff=16, num_layers=1, num_heads=2)
    ).eval()
    scheduler = DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False, timestep_spacing="linspace")
    theirs = LattePipeline(words, encoder, autoencoder, awake(latte_1(sample_size=8, video_length=3)), scheduler)
    theirs.set_progress_bar_config(disable=True)
    theirs.save_pretrained(tmp_path / "theirs")
    pipe = load(import_latte(tmp_path / "theirs", tmp_path / "ours", frames=3, size=(64, 64)))
    prompt, other = "a red ball rolls", "a ball red rolls"  # of one length: diffusers attends to padding
    made = pipe(prompt, negative_prompt=other, steps=3, guidance=3.0, seed=5)
    noise = torch.randn((1, 4, 3, 8, 8), generator=torch.Generator().manual_seed(5))
    embeds = [encoder(**words(text, return_tensors="pt")).last_hidden_state for text in (prompt, other)]
    wanted = theirs(
        prompt_embeds=embeds[0], negative_prompt_embeds=embeds[1], prompt=None, negative_prompt=None, num_inference_steps=3,
        guidance_scale=3.0, height=64, width=64, video_length=3, latents=noise, output_type="latents",
        enable_temporal_attentions=True, decode_chunk_size=3, mask_feature=False,
    ).frames  # fmt: skip
    assert (made.latents - wanted).norm() < 1e-4 * wanted.norm()


def test_what_is_no_latte_is_refused_with_nothing_written(autoencoder, tmp_path):
    autoencoder.save_pretrained(tmp_path / "vae")
    (tmp_path / "text.pt").write_text("no checkpoint")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    torch.save({"model": to_official(Latte(**SIZES, classes=2), 4, 8)}, tmp_path / "good.pt")
    vae = {"autoencoder": tmp_path / "vae", "heads": 2}
    cases = [
        ("nowhere.pt", vae, UnknownModel, "neither a checkpoint file nor a folder"),
        ("text.pt", vae, BadInput, "no checkpoint that can be read safely"),
        ("other.pt", vae, BadInput, "other things than weights"),
        ("good.pt", {"heads": 2}, BadInput, "--autoencoder"),
        ("good.pt", {**vae, "classes": ["one"]}, BadInput, "1 names of classes were given and good.pt has 2"),
        ("vae", {}, UnknownModel, "holds no Latte"),
    ]
    for name, options, kind, words in cases:
        with pytest.raises(kind, match=words):
            import_latte(tmp_path / name, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(BadOutput, match="there already"):
        import_latte(tmp_path / "good.pt", tmp_path / "out", **vae)
    with pytest.raises(LongtakeError, match="cannot be written"):
        import_latte(tmp_path / "good.pt", tmp_path / "missing" / "out", **vae)


def test_a_pickle_with_code_in_it_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"ema": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(BadInput, match="read safely"):
        read_weights(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()

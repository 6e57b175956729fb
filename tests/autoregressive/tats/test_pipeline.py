import json

import pytest
import tiny
import torch

import longtake
from longtake.autoregressive.tats.drawing import Drawing
from longtake.autoregressive.tats.hierarchy import gap_length, hierarchical
from longtake.autoregressive.tats.layout import layout, text_tokens
from longtake.autoregressive.tats.pipeline import TatsPipeline
from longtake.autoregressive.tats.windows import slide
from longtake.backbones.gpt_sampling import Choice, draw_noise
from longtake.errors import BadInput, BadSize, UnknownModel, UnknownName, Unsupported
from longtake.methods import as_methods
from longtake.pipelines.generating import generate, regenerate
from longtake.tokenizers.vqgan3d import VQGAN3d
from longtake.video import read_clip

CLASSES = ["a ball rolls left", "a cube spins", "a cone falls"]


def tokenizer(seed: int = 0, **changes) -> VQGAN3d:
    generator = torch.Generator().manual_seed(seed)
    made = VQGAN3d(**{"base_width": 4, "downsample": (4, 8, 8), "codes": 32, "code_width": 8, **changes}).eval()
    clips = torch.rand(4, made.config.channels, 8, 16, 16, generator=generator) * 2 - 1
    made.quantizer.begin(made.vectors(clips), generator)
    return made


def pipeline(kind="class", *, hierarchy=False, **changes) -> TatsPipeline:
    """Of clips of 16 frames of 16x16: 4x2x2 tokens."""
    classes = CLASSES if kind == "class" else []
    own = layout(kind, codes=32, rows=2, columns=2, classes=len(classes))
    return TatsPipeline(
        changes.pop("tokenizer", None) or tokenizer(),
        tiny.gpt(own.window_length(4), own),
        tiny.gpt(gap_length(own, 4), own, seed=1) if hierarchy else None,
        condition=kind,
        classes=classes,
        spacing=4 if hierarchy else 1,
        clip_size=[16, 16, 16],
        **changes,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("tats") / "tats"
    pipeline(hierarchy=True, drawing={"top_k": 9, "context": 1}, fps=10.0).save_pretrained(out)
    return out


def noise(frames, *seeds):
    return draw_noise([torch.Generator().manual_seed(seed) for seed in seeds], frames * 4)


def test_a_clip_is_the_decoded_sliding_window_of_its_seed():
    pipe = pipeline()
    made = pipe("a cube spins", frames=24, seed=5, drawing={"top_k": 4, "top_p": 0.9, "first_top_k": 2})
    chosen = {"choice": Choice(top_k=4, top_p=0.9), "first": Choice(top_k=2, top_p=0.9)}
    ids = slide(pipe.transformer, pipe.layout, torch.tensor([[1]]), noise(6, 5), **chosen)
    assert torch.equal(made.latents, ids)
    torch.testing.assert_close(made.clip.pixels, pipe.tokenizer.decode(ids), atol=1e-6, rtol=0)
    assert made.clip.pixels.shape == (1, 3, 24, 16, 16)


def test_a_hierarchy_fills_its_gaps_and_ends_where_it_was_asked_to():
    pipe = pipeline(hierarchy=True)
    made = pipe("a cone falls", frames=28, seed=2)
    ids = hierarchical(
        pipe.transformer, pipe.interpolator, pipe.layout, torch.tensor([[2]]), noise(9, 2),
        spacing=4, choice=Choice(top_k=2048, top_p=0.8),
    )  # fmt: skip
    assert torch.equal(made.latents, ids[:, :7])


@pytest.mark.slow
def test_a_thousand_frames_come_out_in_one_piece():
    told = []
    made = pipeline(hierarchy=True)(
        "a cone falls", frames=1028, on_step=lambda done, tokens: told.append((done, tokens))
    )
    assert made.clip.pixels.shape == (1, 3, 1028, 16, 16) and made.latents.shape == (1, 257, 2, 2)
    assert told[-1] == (257 * 4, 257 * 4)
    assert made.latents[0].flatten(1).unique(dim=0).shape[0] > 50


def test_a_clip_of_a_batch_is_the_clip_of_its_seed():
    pipe = pipeline(hierarchy=True)
    both = pipe("a cube spins", frames=36, seed=3, count=2)
    alone = [pipe("a cube spins", frames=36, seed=3 + i) for i in range(2)]
    assert torch.equal(both.latents, torch.cat([one.latents for one in alone]))
    assert not torch.equal(both.latents[0], both.latents[1])


def test_conditions_are_tokens_in_front():
    text = pipeline("text")
    assert torch.equal(text.condition("a red ball"), text_tokens(["a red ball"]))
    ids = slide(text.transformer, text.layout, text_tokens(["a red ball"]), noise(4, 1), choice=Choice(1.0, 2048, 0.8))
    assert torch.equal(text("a red ball", seed=1).latents, ids)
    free = pipeline("none")
    assert torch.equal(free(seed=1).latents, free("", seed=1).latents)


def test_larger_pictures_need_a_table_of_places():
    own = layout("class", codes=32, rows=2, columns=2, classes=3)
    pipe = pipeline()
    pipe.transformer = tiny.gpt(own.window_length(4), own, grid=(4, 3, 4))
    made = pipe("a cube spins", frames=16, height=24, width=32)
    assert made.clip.pixels.shape == (1, 3, 16, 24, 32)
    with pytest.raises(BadSize, match="32x24 is not the 16x16"):
        pipeline()("a cube spins", height=24, width=32)


def test_it_is_saved_and_loaded(folder):
    pipe = longtake.load(folder)
    assert isinstance(pipe, TatsPipeline) and pipe.config.fps == 10.0
    own = pipeline(hierarchy=True, drawing={"top_k": 9, "context": 1})
    assert torch.equal(pipe("a cube spins", frames=20).latents, own("a cube spins", frames=20).latents)
    assert pipe("a cube spins", frames=20).record.settings.drawing == own.config.drawing


def test_in_half_precision_the_tokenizer_stays_as_it_is(folder):
    pipe = longtake.load(folder, dtype="bfloat16")
    assert pipe.transformer.dtype == pipe.interpolator.dtype == torch.bfloat16
    assert pipe.tokenizer.dtype == torch.float32
    assert pipe("a cube spins", frames=20).clip.pixels.isfinite().all()


def test_another_tokenizer_is_refused(folder, tmp_path):
    index = json.loads((folder / "model_index.json").read_text())
    saved = VQGAN3d.from_pretrained(folder / "tokenizer", low_cpu_mem_usage=False)
    assert index["tokenizer_hash"] == saved.content_hash()
    other = tmp_path / "other"
    pipeline(hierarchy=True).save_pretrained(other)
    tokenizer(7).save_pretrained(other / "tokenizer")
    with pytest.raises(UnknownModel, match="the tokenizer has hash"):
        longtake.load(other)


def test_it_is_generated_to_a_file_and_again_from_its_record(folder, tmp_path):
    told = []
    (made,) = generate(
        "a cube spins", model=folder, out=tmp_path / "long.mp4", frames=52, seed=4, on_step=lambda *n: told.append(n)
    )
    assert read_clip(made.path).pixels.shape[2] == 52
    assert told[-1] == (0, 52, 52)  # 13 latent frames of 4 tokens
    again = regenerate(tmp_path / "long.json")
    assert again.path.read_bytes() == made.path.read_bytes()
    assert again.record.settings == made.record.settings
    assert "--frames 52" in made.record.command


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"steps": 20}, BadInput, "steps is 20, and this model draws tokens"),
        ({"guidance": 4.0}, BadInput, "guidance is 4"),
        ({"negative_prompt": "a ball rolls left"}, BadInput, "negative_prompt"),
        ({"prompt": ""}, BadInput, "name one of the 3 classes"),
        ({"prompt": "a cube spin"}, UnknownName, "a cube spins"),
        ({"frames": 18}, BadSize, "nearest: 16 or 20"),
        ({"count": 0}, BadInput, "count is 0"),
        ({"drawing": {"topk": 3}}, BadInput, "topk"),
        ({"drawing": {"top_p": 2.0}}, BadInput, "top_p"),
        ({"audio": torch.zeros(1, 1, 4, 8, 8)}, BadInput, "audio was given"),
    ],
)
def test_what_it_does_not_take_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        pipeline()(**{"prompt": "a cube spins", **given})


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"image": "x.png"}, BadInput, "image was given, and this TatsPipeline"),
        ({"guidance_2": 2.0}, BadInput, "guidance_2"),
        ({"scheduler": "euler"}, BadInput, "scheduler 'euler'"),
        ({"methods": as_methods(["taylorseer"])}, Unsupported, "writes tokens"),
    ],
)
def test_generate_refuses_what_only_others_take(folder, tmp_path, given, error, words):
    with pytest.raises(error, match=words):
        generate("a cube spins", model=folder, out=tmp_path / "clip.mp4", **given)
    assert not list(tmp_path.iterdir())


def test_networks_that_do_not_belong_together_are_refused():
    own = layout("class", codes=32, rows=2, columns=2, classes=3)
    gpt = tiny.gpt(own.window_length(4), own)
    given = {"condition": "class", "clip_size": [16, 16, 16]}
    with pytest.raises(BadSize, match="vocabulary of 35, and condition and codes make 34"):
        TatsPipeline(tokenizer(), gpt, classes=CLASSES[:2], **given)
    with pytest.raises(BadSize, match="interpolator has 16 positions, and a gap of spacing 4 has 21"):
        TatsPipeline(tokenizer(), gpt, gpt, classes=CLASSES, spacing=4, **given)
    with pytest.raises(BadInput, match="spacing 1 has no gaps"):
        TatsPipeline(tokenizer(), gpt, gpt, classes=CLASSES, **given)
    with pytest.raises(BadInput, match="missing: train 'gaps'"):
        TatsPipeline(tokenizer(), gpt, classes=CLASSES, spacing=4, **given)("a cube spins")


def test_the_drawing_has_the_published_values():
    assert Drawing().choice == Drawing().first == Choice(1.0, 2048, 0.8)
    assert Drawing(first_top_k=16384, first_top_p=0.99).first == Choice(1.0, 16384, 0.99)

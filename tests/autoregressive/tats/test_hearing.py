"""Sound as a condition: every window and every gap hears its own frames, in a pipeline from file to file."""

import json
import wave

import numpy as np
import pytest
import tiny
import torch

import longtake
from longtake.autoregressive.tats.hearing import stretch_tokens
from longtake.autoregressive.tats.hierarchy import fill_gaps, gap_length, hierarchical
from longtake.autoregressive.tats.layout import layout
from longtake.autoregressive.tats.pipeline import TatsPipeline
from longtake.autoregressive.tats.windows import slide
from longtake.backbones.gpt_sampling import Choice, draw_noise, sample_tokens
from longtake.data.spectrogram import spectrogram
from longtake.errors import BadInput, BadSize, BadSound, UnknownModel
from longtake.pipelines.generating import generate, regenerate
from longtake.tokenizers.vqgan3d import VQGAN3d
from longtake.video import Sound, read_clip, read_sound

U, HEARD = 4, 2  # tokens of a latent frame, and of its sound
FPS = 16.0
DRAWN = Choice(top_k=2048, top_p=0.8)


def tokenizer(seed: int, frames: tuple[int, int] = (16, 16), **changes) -> VQGAN3d:
    generator = torch.Generator().manual_seed(seed)
    made = VQGAN3d(**{"base_width": 4, "downsample": (4, 8, 8), "codes": 32, "code_width": 8, **changes}).eval()
    clips = torch.rand(4, made.config.channels, 8, *frames, generator=generator) * 2 - 1
    made.quantizer.begin(made.vectors(clips), generator)
    return made


def ears(seed: int = 3, time: int = 4) -> VQGAN3d:
    return tokenizer(seed, (64, 16), channels=1, downsample=(time, 32, 16))


def pipeline(*, hierarchy: bool = False, **changes) -> TatsPipeline:
    """Of clips of 16 frames of 16x16 at 16 a second, 4x2x2 tokens and 4x2x1 of their sound; keys 4 apart reach over 52."""
    frames, sizes = (13 if hierarchy else 4), {"codes": 32, "rows": 2, "columns": 2}
    own = layout("audio", **sizes, audio=(HEARD * frames, 32))
    between = layout("audio", **sizes, audio=(HEARD * 5, 32))
    return TatsPipeline(
        tokenizer(0),
        tiny.gpt(own.window_length(4), own),
        tiny.gpt(gap_length(between, 4), between, seed=1) if hierarchy else None,
        changes.pop("audio_tokenizer", None) or ears(),
        condition="audio",
        audio_tokens=HEARD,
        spacing=4 if hierarchy else 1,
        fps=FPS,
        **{"clip_size": [4 * frames, 16, 16], **changes},
    )


def sound(seconds: float, seed: int = 0) -> Sound:
    """Noise that comes and goes."""
    generator = torch.Generator().manual_seed(seed)
    count = int(seconds * 16_000)
    swell = torch.sin(torch.arange(count) / 16_000 * 5).abs()
    return Sound((torch.rand(count, generator=generator) * 2 - 1) * 0.5 * swell)


def heard(one: Sound, frames: int) -> torch.Tensor:
    return spectrogram(one, frames, FPS)[None]


def noise(frames, *seeds):
    return draw_noise([torch.Generator().manual_seed(seed) for seed in seeds], frames * U)


# ------------------------------------------------------------------------------------------------------------- stretches


def test_a_stretch_is_encoded_by_itself_and_silent_behind_the_end():
    one, whole = ears(), heard(sound(2.0), 32)
    found = stretch_tokens(one, whole, [0, 2, 6], 4)
    assert found.shape == (1, 3, 4 * HEARD)
    assert torch.equal(found[0, 1], one.encode(whole[:, :, 8:24]).flatten())
    silent = torch.cat([whole[:, :, 24:], torch.full_like(whole[:, :, :8], -1.0)], 2)
    assert torch.equal(found[0, 2], one.encode(silent).flatten())
    with pytest.raises(BadInput, match="expected a spectrogram"):
        stretch_tokens(one, whole[0], [0], 4)


def test_windows_have_conditions_of_their_own():
    """Against a plain loop: the window of a frame begins `context` before it, at the last one of all at the latest."""
    own, generator = tiny.LAYOUT, torch.Generator().manual_seed(5)
    gpt, random = tiny.base(), tiny.noise(7, 0)
    conditions = torch.randint(own.conditions, (1, 4, own.prefix), generator=generator)
    for context in (1, 2, 3):
        made = slide(gpt, own, conditions, random, choice=tiny.DRAWN, context=context)
        tokens = torch.zeros(1, 0, dtype=torch.long)
        for frame in range(7):
            begin = max(0, min(frame - context, 3))
            line = torch.cat([conditions[:, begin], tokens[:, begin * tiny.U :]], 1)
            part = random[:, frame * tiny.U : (frame + 1) * tiny.U]
            tokens = torch.cat([tokens, sample_tokens(gpt, line, part, choice=tiny.DRAWN, ids=own.video)], 1)
        assert torch.equal(made, own.read(tokens))
    same = conditions[:, :1].expand(-1, 4, -1)
    given = {"choice": tiny.DRAWN, "context": 3}
    assert torch.equal(slide(gpt, own, same, random, **given), slide(gpt, own, conditions[:, 0], random, **given))


# ------------------------------------------------------------------------------------------------------------ a pipeline


def test_a_clip_hears_its_sound():
    pipe, one = pipeline(), sound(1.0)
    made = pipe(audio=one, seed=2)
    condition = pipe.audio_tokenizer.encode(heard(one, 16)).flatten(1)
    assert torch.equal(made.latents, slide(pipe.transformer, pipe.layout, condition, noise(4, 2), choice=DRAWN))
    assert torch.equal(made.clip.sound.samples, one.samples)
    assert torch.equal(pipe(audio=heard(one, 16), seed=2).latents, made.latents)
    assert not torch.equal(pipe(audio=sound(1.0, 1), seed=2).latents, made.latents)
    assert torch.equal(
        pipe(audio=one, frames=8, seed=2).latents, made.latents[:, :2]
    )  # the window hears all of its own
    both = pipe(audio=one, seed=2, count=2)
    assert torch.equal(both.latents[:1], made.latents)


def test_each_window_of_a_long_clip_hears_its_own_frames():
    pipe, one = pipeline(), sound(3.0)
    made = pipe(audio=one, frames=48, seed=1)
    whole = heard(one, 48)
    windows = torch.stack(
        [pipe.audio_tokenizer.encode(whole[:, :, 4 * k : 4 * k + 16]).flatten(1) for k in range(9)], 1
    )
    assert torch.equal(made.latents, slide(pipe.transformer, pipe.layout, windows, noise(12, 1), choice=DRAWN))
    assert made.clip.sound.seconds == 3.0
    other = Sound(torch.cat([one.samples[:32_000], sound(1.0, 7).samples]))  # another last second
    changed = pipe(audio=other, frames=48, seed=1).latents
    same = (changed == made.latents).flatten(2).all(2)[0]
    assert same[:7].all() and not same[8:].all()  # frame 8 is the first of which a window hears what was changed


def test_keys_hear_all_that_they_reach_over_and_gaps_their_own():
    pipe, one = pipeline(hierarchy=True), sound(5.0)
    whole = heard(one, 68)
    made = pipe(audio=one, frames=68, seed=3)  # 17 latent frames: keys 0, 4, .. 16, two windows of four
    assert pipe.layout.prefix == 13 * HEARD and pipe.gap_layout.prefix == 5 * HEARD
    encode = pipe.audio_tokenizer.encode
    windows = torch.stack([encode(whole[:, :, 16 * k : 16 * k + 52]).flatten(1) for k in range(2)], 1)
    of_gaps = torch.stack([encode(whole[:, :, 16 * k : 16 * k + 20]).flatten(1) for k in range(4)], 1)
    ids = hierarchical(
        pipe.transformer, pipe.interpolator, pipe.layout, windows, noise(17, 3),
        spacing=4, choice=DRAWN, of_gaps=of_gaps,
    )  # fmt: skip
    assert torch.equal(made.latents, ids)
    last = fill_gaps(
        pipe.interpolator,
        pipe.gap_layout,
        of_gaps[:, 3],
        ids[:, 12],
        ids[:, 16],
        noise(17, 3)[:, -3 * U :],
        choice=DRAWN,
    )
    assert torch.equal(ids[:, 13:16], last)
    shorter = pipe(audio=one.first(3.5), frames=56, seed=3)  # keys reach over 68 frames: silent behind the 56th
    assert shorter.latents.shape == (1, 14, 2, 2)
    with pytest.raises(BadInput, match="give of_gaps"):
        hierarchical(pipe.transformer, pipe.interpolator, pipe.layout, windows, noise(17, 3), spacing=4, choice=DRAWN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("heard") / "tats"
    pipeline().save_pretrained(out)
    return out


@pytest.fixture
def wav(tmp_path):
    """Two seconds at 22,050 a second, two channels."""
    path = tmp_path / "sound.wav"
    samples = np.sin(np.arange(44_100) * 0.2) * np.linspace(0, 0.9, 44_100)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(22_050)
        file.writeframes((np.stack([samples, 0 * samples], 1) * 32767).astype("<i2").tobytes())
    return path


def test_from_a_sound_file_to_a_clip_that_carries_it(folder, wav, tmp_path):
    (made,) = generate("", model=folder, out=tmp_path / "clip.mp4", audio=wav, seed=4)
    pipe, given = longtake.load(folder), read_sound(wav)
    ids = pipe(audio=given, seed=4)
    shown = read_clip(made.path)
    assert shown.frames == 16 and (shown.pixels - ids.clip.pixels).abs().mean() < 0.1
    carried = read_sound(made.path)
    assert carried.seconds == pytest.approx(1.0, abs=0.02)
    both = torch.stack([carried.samples[:15_000], given.samples[:15_000]])
    assert torch.corrcoef(both)[0, 1] > 0.95 and carried.samples.abs().max() > 0.1

    assert made.record.settings.audio.path == str(wav) and f"--audio {wav}" in made.record.command
    again = regenerate(tmp_path / "clip.json")
    assert again.path.read_bytes() == made.path.read_bytes()
    wav.write_bytes(wav.read_bytes()[:-400] + b"\x01" * 400)
    with pytest.raises(BadInput, match=r"audio of the record.*has changed"):
        regenerate(tmp_path / "clip.json")


def test_another_audio_tokenizer_is_refused(folder, tmp_path):
    index = json.loads((folder / "model_index.json").read_text())
    saved = VQGAN3d.from_pretrained(folder / "audio_tokenizer", low_cpu_mem_usage=False)
    assert index["audio_tokenizer_hash"] == saved.content_hash()
    other = tmp_path / "other"
    pipeline().save_pretrained(other)
    ears(8).save_pretrained(other / "audio_tokenizer")
    with pytest.raises(UnknownModel, match="the audio tokenizer has hash"):
        longtake.load(other)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"audio": None}, BadInput, "audio is missing, and this model makes clips to sounds"),
        ({"prompt": "a ball"}, BadInput, "hears sound alone: leave it empty"),
        ({"frames": 24}, BadInput, r"lasts 1\.00 s, and 24 frames at 16 frames per second 1\.50 s: ask for at most 16"),
        ({"audio": sound(0.2)}, BadInput, "give a longer sound"),
        ({"audio": sound(0.7)}, BadInput, "at most 8 frames, or give a longer sound"),
        (
            {"audio": torch.zeros(1, 1, 12, 64, 16)},
            BadInput,
            "audio has 12 frames, and the clip 16: ask for at most 12",
        ),
        ({"audio": torch.zeros(1, 1, 16, 32, 16)}, BadInput, "audio of 4 tokens; this model reads 8"),
        ({"audio": torch.zeros(1, 16, 64, 16)}, BadInput, "expected a spectrogram"),
        ({"audio": torch.full((1, 1, 16, 64, 16), 3.0)}, BadInput, "outside"),
        ({"audio": Sound(torch.zeros(48_000), 48_000)}, BadInput, "48000 samples a second"),
        ({"audio": "gone.wav"}, BadSound, "gone.wav does not exist"),
    ],
)
def test_what_cannot_be_heard_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        pipeline()(**{"audio": sound(1.0), **given})


def test_networks_that_do_not_belong_together_are_refused():
    with pytest.raises(BadSize, match="not those of 5 latent frames and their sound"):
        pipeline(clip_size=[20, 16, 16])
    with pytest.raises(BadSize, match="audio tokenizer makes ids of 2 frames and the tokenizer of 4"):
        pipeline(audio_tokenizer=ears(time=2))


def test_models_that_hear_nothing_say_so(wav, tmp_path):
    for model, prompt in (("starter", "a red ball"), ("starter-latte", "a ball rolls left")):
        with pytest.raises(BadInput, match="audio was given, and this VideoPipeline hears no sound: leave it out"):
            generate(prompt, model=model, out=tmp_path / "clip.mp4", audio=wav)
    assert [path.name for path in tmp_path.iterdir()] == ["sound.wav"]

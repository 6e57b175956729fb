"""The sound of scenes against closed forms of their motion."""

import math
from dataclasses import replace

import pytest
import torch

from longtake.data.scenes import SceneDataset, SceneOptions, sample_scene, scene_sound, sound_events
from longtake.data.scenes.motion import GRAVITY
from longtake.data.spectrogram import spectrogram
from longtake.errors import BadInput, UnknownName

RATE = 16_000


def lone(kind, number=0, shape="ball"):
    options = SceneOptions(shapes=(shape,), motions=(kind,), relations=("alone",), cameras=("static",), split="all")
    return sample_scene(number, options)


def slowed(scene, pace):
    (thing,) = scene.objects
    return replace(scene, objects=(replace(thing, motion=replace(thing.motion, pace=pace)),))


def hum(scene):
    """Strongest frequency of a second of sound, in Hz."""
    samples = scene_sound(scene, 8, fps=8.0).samples
    return torch.fft.rfft(samples * torch.hann_window(len(samples))).abs().argmax().item()


@pytest.mark.parametrize("number", range(6))
def test_a_bounce_clicks_at_the_instant_of_contact(number):
    scene = lone("bounce", number)
    motion = scene.objects[0].motion
    period = 2 * math.sqrt(2 * motion.amount / GRAVITY)
    contacts = [(k - motion.phase) * period / motion.pace for k in range(9)]
    contacts = [second for second in contacts if 0 <= second < 2]
    events = sound_events(scene, 24, fps=12.0)
    assert [one.frame / 12 for one in events.contacts] == pytest.approx(contacts, abs=1e-4)
    speed = 2 * math.sqrt(2 * GRAVITY * motion.amount) * motion.pace
    assert [one.jump for one in events.contacts] == pytest.approx([speed] * len(contacts), rel=0.01)
    assert events.moves == ((0.0, 24.0),)

    samples = scene_sound(scene, 24, fps=12.0).samples
    for second in contacts:
        start = math.ceil(second * RATE - 1e-2)
        quiet = samples[max(0, start - 1600) : start - 2]
        assert not len(quiet) or quiet.abs().max() == 0  # in the air there is nothing to hear
        assert samples[start : start + 80].abs().max() > 0.3
        faded = samples[start + 800 : start + 1600]  # 50 ms later
        assert not len(faded) or faded.abs().max() < 0.05


def test_a_fall_lands_ever_more_softly_and_then_all_is_still():
    scene = lone("fall", 3)
    motion = scene.objects[0].motion
    events = sound_events(scene, 32, fps=16.0)
    assert events.contacts[0].frame / 16 == pytest.approx(
        math.sqrt(2 * motion.amount / GRAVITY) / motion.pace, abs=1e-4
    )
    assert [one.jump for one in events.contacts] == sorted((one.jump for one in events.contacts), reverse=True)
    ((begin, end),) = events.moves
    assert begin < 0.1 and end == pytest.approx(events.contacts[-1].frame, abs=0.05)
    assert scene_sound(scene, 32, fps=16.0).samples[int((end / 16 + 0.2) * RATE) :].abs().max() == 0


def test_rolling_hums_higher_and_louder_the_faster_it_is():
    scene = lone("roll-left")
    motion = scene.objects[0].motion
    pitches, loudness = [], []
    for pace in (0.5, 1.0, 2.0):
        speed = motion.amount * pace / 2
        pitches.append(hum(slowed(scene, pace)))
        assert abs(pitches[-1] - (180 + 120 * speed)) <= 2
        loudness.append(scene_sound(slowed(scene, pace), 8, fps=8.0).samples.square().mean().sqrt().item())
    assert loudness[1] / loudness[0] == pytest.approx(2, rel=0.05) == loudness[2] / loudness[1]
    assert not sound_events(scene, 8).contacts


@pytest.mark.parametrize("kind", ["still", "spin", "grow", "shrink"])
def test_nothing_sounds_where_nothing_moves_from_its_place(kind):
    events = sound_events(lone(kind), 16)
    assert not events.contacts and not events.moves
    assert scene_sound(lone(kind), 16).samples.abs().max() == 0


def test_sliding_is_fainter_than_rolling_and_has_no_pitch():
    rolls, slides = (scene_sound(lone(kind), 16).samples for kind in ("roll-left", "slide-left"))
    assert 0 < slides.square().mean() < rolls.square().mean() / 4
    spectrum = [torch.fft.rfft(one).abs() for one in (rolls, slides)]
    peaks = [(one.max() / one.mean()).item() for one in spectrum]
    assert peaks[0] > 10 * peaks[1]


def test_a_collision_is_heard_of_both_bodies_at_once():
    scene = sample_scene(0, SceneOptions(relations=("collide",), split="all"))
    events = sound_events(scene, 17)
    assert sorted(one.thing for one in events.contacts) == [0, 1]
    assert events.contacts[0].frame == pytest.approx(events.contacts[1].frame, abs=1e-2)


@pytest.mark.parametrize(("frames", "fps"), [(17, 8.0), (16, 12.0), (5, 29.97)])
def test_it_is_as_long_as_the_clip_and_always_the_same(frames, fps):
    scene = lone("slide-right", 4)
    sound = scene_sound(scene, frames, fps=fps)
    assert (sound.rate, len(sound.samples)) == (RATE, round(frames / fps * RATE))
    assert torch.equal(sound.samples, scene_sound(lone("slide-right", 4), frames, fps=fps).samples)
    assert not torch.equal(sound.samples, scene_sound(lone("slide-right", 5), frames, fps=fps).samples)
    assert sound.samples.abs().max() <= 1


def test_items_of_a_data_set_hold_it_beside_their_pictures_or_alone():
    given = {"options": SceneOptions(motions=("bounce",), relations=("alone",)), "count": 2, "frames": 4, "fps": 16.0}
    beside, alone = (SceneDataset(**given, height=16, width=16, sound=word)[1] for word in ("beside", "alone"))
    scene = SceneDataset(**given).scene(1)
    assert beside["pixels"].shape == (3, 4, 16, 16)
    assert torch.equal(beside["sound"], spectrogram(scene_sound(scene, 4, fps=16.0), 4, 16.0))
    assert torch.equal(alone["pixels"], beside["sound"]) and "sound" not in alone
    with pytest.raises(UnknownName, match="alone"):
        SceneDataset(**given, sound="aloen")


def test_a_clip_of_no_length_is_refused():
    with pytest.raises(BadInput, match="0 frames"):
        scene_sound(lone("still"), 0)
    with pytest.raises(BadInput, match="at 0"):
        sound_events(lone("still"), 4, fps=0)

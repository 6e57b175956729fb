import pytest

from longtake.data.scenes import SceneOptions, canonical, sample_scene
from longtake.data.scenes.captions import CAMERA_PHRASES, NOUNS, VERBS
from longtake.data.scenes.world import CAMERAS, COLOURS, MOTIONS, SHAPES, TEXTURES

EVERYTHING = SceneOptions(
    shapes=SHAPES, colours=tuple(COLOURS), textures=TEXTURES, motions=MOTIONS, split="all", moving_camera_share=0.25
)


@pytest.mark.parametrize("seed", range(60))
def test_every_caption_says_what_the_scene_shows(seed):
    scene = sample_scene(seed, EVERYTHING)
    captions = scene.captions
    assert len(captions) >= 4 and len(set(captions)) == len(captions) and scene.caption == captions[0]
    for caption in captions:
        for thing in scene.attributes["objects"]:
            assert any(f"{thing['colour']} " in caption and noun in caption for noun in NOUNS[thing["shape"]]), caption
            if thing["texture"] not in ("plain", "banded"):
                assert thing["texture"] in caption
        if scene.camera.kind != "static":
            assert any(phrase in caption for phrase in CAMERA_PHRASES[scene.camera.kind])
    if scene.relation == "alone":
        assert VERBS[scene.objects[0].motion.kind][0] in captions[0]
    if scene.relation == "behind":
        assert all(" behind a" in caption for caption in captions)


def test_the_plain_caption_tells_all_attributes_apart():
    meant = {}
    for scene in map(sample_scene, range(600)):
        meant.setdefault(scene.caption, set()).add(canonical(scene.attributes))
    assert len(meant) > 300 and all(len(lines) == 1 for lines in meant.values())


def test_every_word_of_the_world_has_a_phrase():
    assert set(NOUNS) == set(SHAPES)
    assert set(VERBS) == set(MOTIONS) - {"pushed"}
    assert set(CAMERA_PHRASES) == set(CAMERAS) - {"static"}

import pytest
import torch

from longtake.data.latent_cache import cache_latents
from longtake.errors import BadData, BadInput, BadRecipe
from longtake.tokenizers.vqgan3d import VQGAN3d
from longtake.training.batches import Stream
from longtake.training.parallel import World
from longtake.training.recipe import data_parts, resolve
from longtake.training.sources import Preloaded, Windows, latent_data, pixel_data
from longtake.video import write_clip

WORLD = World(0, 1, torch.device("cpu"))
SIZE = {"frames": 5, "height": 16, "width": 16, "workers": 0}


def data(**fields):
    return resolve({"data": {**SIZE, **fields}}, {})[0].data


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three videos of 20 frames whose brightness rises from frame to frame."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(3):
        ramp = torch.linspace(-0.8, 0.8, 20).view(1, 1, 20, 1, 1) - 0.05 * number
        write_clip(ramp.expand(1, 3, 20, 16, 16).contiguous(), root / f"video {number}.mp4", fps=10)
    return root


def test_held_out_scenes_show_prompts_that_training_never_shows():
    (train,), held_out = pixel_data(data(count=30, held_out=6), 0, WORLD)
    assert (len(train), len(held_out)) == (30, 6)
    assert tuple(train[0]["pixels"].shape) == (3, 5, 16, 16)
    assert not {item["prompt"] for item in held_out} & {train[(e, i)]["prompt"] for e in (0, 1) for i in range(30)}


def test_rendered_scenes_are_the_same_as_those_rendered_on_the_way(tmp_path):
    fresh = pixel_data(data(count=3, held_out=1), 0, WORLD)[0][0]
    kept = pixel_data(data(count=3, held_out=1, cache=str(tmp_path / "cache")), 0, WORLD)[0][0]
    assert list((tmp_path / "cache").rglob("*.npy"))
    for index in range(3):
        assert torch.equal(fresh[index]["pixels"], kept[index]["pixels"])


def test_windows_of_longer_scenes_move_with_the_epoch():
    longer = pixel_data(data(count=2, held_out=1, frames=9), 0, WORLD)[0][0]
    train = pixel_data(data(count=2, held_out=1, rendered_frames=9), 0, WORLD)[0][0]
    assert isinstance(train, Windows)
    whole = longer[0]["pixels"]
    starts = set()
    for epoch in range(12):
        window = train[(epoch, 0)]["pixels"]
        assert torch.equal(window, train[(epoch, 0)]["pixels"])
        starts |= {s for s in range(5) if torch.equal(window, whole[:, s : s + 5])}
    assert len(starts) > 1


def test_videos_hold_out_a_quarter_at_most_and_nothing_twice(videos):
    (train,), held_out = pixel_data(data(kind="videos", root=str(videos), window_seconds=0.5, fps=10), 0, WORLD)
    assert len(train) + len(held_out) == 12
    assert len(held_out) == 3
    assert not {item["source"] for item in held_out} & {train[i]["source"] for i in range(len(train))}


def test_preloaded_videos_are_those_of_the_first_epochs_again_and_again(videos):
    (plain,), _ = pixel_data(data(kind="videos", root=str(videos)), 0, WORLD)
    (kept,), _ = pixel_data(data(kind="videos", root=str(videos), preload=2), 0, WORLD)
    assert isinstance(kept.dataset, Preloaded)
    for epoch in range(4):
        expected = plain[(epoch % 2, 0)]
        got = kept[(epoch, 0)]
        torch.testing.assert_close(got["pixels"], expected["pixels"], atol=1 / 127, rtol=0)
        assert got["source"] == expected["source"]


class Halves:
    """A stand-in for a tokenizer."""

    def encode(self, pixels):
        return pixels[:, :1, ::2, ::8, ::8]

    def content_hash(self):
        return "halves" * 4


def test_a_cache_folder_of_latents_is_data_and_belongs_to_its_tokenizer(tmp_path):
    (scenes,), _ = pixel_data(data(count=8, held_out=1), 0, WORLD)
    cache_latents(scenes, Halves(), tmp_path / "cache", progress=False)
    own = data(kind="latents", root=str(tmp_path / "cache"), held_out=2)
    (train,), held_out = latent_data(own, 0, Halves(), WORLD)
    assert (len(train), len(held_out)) == (6, 2)
    assert tuple(train[(1, 0)]["latents"].shape) == (1, 3, 2, 2)
    other = Halves()
    other.content_hash = lambda: "another" * 4
    with pytest.raises(BadData, match="another"):
        latent_data(own, 0, other, WORLD)


def test_windows_of_cached_ids_move_with_the_epoch(tmp_path):
    vqgan = VQGAN3d(codes=64, code_width=8, base_width=4, downsample=(2, 4, 4)).eval()
    with torch.no_grad():
        vqgan.quantizer.begin(torch.randn(64, 8, 1, 1, 1), torch.Generator().manual_seed(0))
    own = {"count": 3, "held_out": 1, "cache": str(tmp_path), "options": {"relations": ["alone"]}}
    whole = latent_data(data(**own, frames=16), 0, vqgan, WORLD, ("label",))[0][0]
    asked = data(**own, frames=4, rendered_frames=16, cut="latents")
    (train,), held_out = latent_data(asked, 0, vqgan, WORLD, ("label",))
    assert isinstance(train, Windows)
    assert (len(train), len(held_out)) == (3, 1)
    ids, starts = whole[1]["latents"], set()
    for epoch in range(12):
        item = train[(epoch, 1)]
        assert item["label"] == whole[1]["label"]
        assert torch.equal(item["latents"], train[(epoch, 1)]["latents"])
        starts |= {s for s in range(7) if torch.equal(item["latents"], ids[s : s + 2])}
    assert len(starts) > 3
    for tokenizer, fields in ((Halves(), own), (vqgan, {**own, "cache": None}), (vqgan, {**own, "kind": "latents"})):
        with pytest.raises(BadRecipe, match=r"data\.cut"):
            latent_data(data(**{**fields, "frames": 4, "rendered_frames": 16, "cut": "latents"}), 0, tokenizer, WORLD)


def test_data_that_cannot_be_had_is_refused(tmp_path, videos):
    for fields, error, words in (
        ({"kind": "videos"}, BadRecipe, r"data\.root"),
        ({"kind": "videos", "root": str(tmp_path)}, BadData, str(tmp_path)),
        ({"kind": "videos", "root": str(videos), "options": {"strid": 2}}, BadRecipe, r"data\.options\.strid"),
        ({"kind": "videos", "root": str(videos), "stride": 0}, BadInput, "stride"),
        ({"options": {"shape": ["ball"]}}, BadRecipe, r"data\.options\.shape.*'shapes'"),
        ({"rendered_frames": 3}, BadRecipe, "rendered_frames"),
        ({"cut": "latents"}, BadRecipe, r"data\.cut"),
    ):
        with pytest.raises(error, match=words):
            pixel_data(data(**fields), 0, WORLD)


def test_a_mixture_draws_each_step_from_one_set_by_its_share():
    mixed = data(batch_size=2, count=3, held_out=1, mix=[{"height": 32, "count": 4, "share": 3.0}])
    sets, _ = pixel_data(mixed, 0, WORLD)
    assert [tuple(part[0]["pixels"].shape) for part in sets] == [(3, 5, 16, 16), (3, 5, 32, 16)]
    numbers = [list(range(100)), list(range(1000, 1100))]

    class Number:
        def __init__(self, values):
            self.values = values

        def __len__(self):
            return len(self.values)

        def __getitem__(self, key):
            return {"number": self.values[key[1]]}

    def draw(steps, step=0, positions=None):
        shares = [part.share for part in data_parts(mixed)]
        stream = Stream([Number(v) for v in numbers], shares, mixed, 0, WORLD, step, positions)
        drawn = [(b[0]["number"], s[0]) for _, (b, s) in zip(range(steps), stream, strict=False)]
        return drawn, stream

    drawn, stream = draw(200)
    from_second = sum(batch[0] >= 1000 for batch, _ in drawn)
    assert from_second / 200 == pytest.approx(0.75, abs=0.1)
    assert all((a >= 1000) == (b >= 1000) for (a, b), _ in drawn)
    seeds = [seed for _, two in drawn for seed in two]
    assert len(set(seeds)) == 400
    head, middle = draw(90)
    assert head == drawn[:90]
    tail, _ = draw(110, 90, middle.positions)
    assert tail == drawn[90:]
    assert sum(stream.positions) == 400


def test_keys_of_the_whole_batch_have_no_place_in_a_mixture():
    with pytest.raises(BadRecipe, match=r"data\.mix\.0\.batch_size"):
        data(mix=[{"batch_size": 3}])
    with pytest.raises(BadRecipe, match=r"data\.mix\.0\.heigth.*'height'"):
        data(mix=[{"heigth": 3}])

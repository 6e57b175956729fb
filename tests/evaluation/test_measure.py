"""The engine: oracles, the same numbers for any batch, order, cache and number of processes, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as multiprocessing

from longtake.data.scenes import SceneOptions, render_scenes, sample_scene
from longtake.errors import BadData, BadInput
from longtake.evaluation import observing
from longtake.evaluation.measure import measure
from longtake.evaluation.metrics.frechet import Moments, frechet_distance
from longtake.evaluation.metrics.reference import psnr_frame_mean
from longtake.evaluation.networks import FeatureNetwork
from longtake.evaluation.networks.scene_classifier import SceneClassifier, random_classifier
from longtake.evaluation.protocol import Protocol, Side
from longtake.evaluation.sources import TensorSource
from longtake.video import to_uint8

FRAMES = 4
SIDE = Side(frames=FRAMES)
PROTOCOL = Protocol("ours+", SIDE, SIDE)


def clips(count: int = 20, seed: int = 0, contrast: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    soft = torch.rand(count, 3, FRAMES, 2, 2, generator=generator)
    grown = torch.nn.functional.interpolate(soft, size=(FRAMES, 12, 12), mode="trilinear")
    return ((grown - 0.5) * contrast * 255 + 127.5).to(torch.uint8)


def linear(name: str = "tiny", frames: bool = False, width: int = 3) -> FeatureNetwork:
    """Features that a loop can check: means of colours over the clip, in units of 1."""

    def features(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().mean((2, 3, 4))[:, :width] / 255

    def probabilities(pixels: torch.Tensor) -> torch.Tensor:
        return (20 * features(pixels)).softmax(1)

    return FeatureNetwork(name, name * 8, width, frames, features, None if frames else probabilities)


def run(fake: torch.Tensor, real: torch.Tensor | None = None, metrics=("fvd",), protocol=PROTOCOL, **options):
    options = {"network": linear(), "frame_network": linear("still", True), "resamples": 20, **options}
    sides = [None if side is None else TensorSource(side) for side in (fake, real)]
    return measure(*sides, list(metrics), protocol, **options).result


def test_fvd_is_the_distance_of_the_features_and_that_of_a_set_to_itself_is_0() -> None:
    fake, real = clips(seed=1, contrast=0.7), clips()
    result = run(fake, real, ("fvd", "kvd", "fid"))
    features = [side.double().mean((2, 3, 4)) / 255 for side in (real, fake)]
    wanted = frechet_distance(*map(Moments.of, features))
    assert result["FVD[tiny]"].value == pytest.approx(wanted, rel=1e-4)
    frames = [side.double().mean((3, 4)).transpose(1, 2).flatten(0, 1) / 255 for side in (real, fake)]
    assert result["FID[still]"].value == pytest.approx(frechet_distance(*map(Moments.of, frames)), rel=1e-4)
    names = [value.name for value in result.values]
    assert names == ["FVD[tiny]", "KVD[tiny]", "precision[tiny]", "recall[tiny]", "nearest[tiny]", "FID[still]"]
    assert result["fvd"].reference > 0 and result["fvd"].low is not None
    assert run(real, real)["fvd"].value < 1e-9


def test_the_divisor_of_the_covariance_is_the_protocols() -> None:
    fake, real = clips(8, seed=1), clips(8)
    for divisor, ddof in (("N", 0), ("N-1", 1)):
        found = run(fake, real, protocol=replace(PROTOCOL, covariance_divisor=divisor))["fvd"].value
        moments = [Moments.of(side.double().mean((2, 3, 4)) / 255) for side in (real, fake)]
        assert found == pytest.approx(frechet_distance(*moments, ddof=ddof), rel=1e-4)


def test_the_protocol_of_a_result_names_its_networks() -> None:
    result = run(clips(), clips(seed=2), ("fvd", "fid"))
    assert (result.protocol.network, result.protocol.network_hash) == ("tiny", "tiny" * 8)
    assert result.protocol.frame_network_hash == "still" * 8 and result.protocol.id != PROTOCOL.id
    only = run(clips(), metrics=("flicker",))
    assert only.protocol.network_hash == "" and only.networks == {}
    assert result.fake.index_hash != result.real.index_hash and len(result.fake.clips) == 20
    assert result.networks["tiny"]["width"] == 3 and result.versions["torch"]


def test_batches_order_and_the_cache_change_no_number(tmp_path: Path) -> None:
    network = FeatureNetwork("random", "0", 128, False, random_classifier(16).features)
    fake, real = clips(seed=1), clips()
    options = {"metrics": ("fvd", "flicker", "psnr"), "network": network, "cache": tmp_path}
    first = run(fake, real, batch=8, **options)
    again = run(fake, real, batch=3, **options)
    turned = run(fake.flip(0), real.flip(0), batch=5, **{**options, "cache": None})
    assert first.decoded == 40 and again.decoded == 0 and turned.decoded == 40
    for value in first.values:
        assert again[value.name].value == value.value
        for side in ("value", "low", "high", "reference"):
            one, other = getattr(value, side), getattr(turned[value.name], side)
            assert (one is None and other is None) or one == pytest.approx(other, rel=1e-6, abs=1e-6), value.name


def test_real_features_are_kept_for_other_generated_clips(tmp_path: Path) -> None:
    run(clips(seed=1), clips(), cache=tmp_path)
    assert run(clips(seed=2), clips(), cache=tmp_path).decoded == 20
    other = FeatureNetwork("tiny", "other weights", 3, False, linear().features)
    assert run(clips(seed=2), clips(), cache=tmp_path, network=other).decoded == 40


def measure_apart(rank: int, folder: str) -> None:
    observing.SHARD = 4
    if rank >= 0:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    source = [TensorSource(side) for side in (clips(seed=1), clips())]
    network = FeatureNetwork("random", "0", 128, False, random_classifier(16).features)
    found = measure(*source, ["fvd", "psnr"], PROTOCOL, network=network, batch=2 if rank else 4, resamples=10).result
    told = {value.name: (value.value, value.low, value.high, value.reference) for value in found.values}
    numbers = {name: [float("nan") if one is None else one for one in four] for name, four in told.items()}
    torch.save({"numbers": numbers, "processes": found.processes, "decoded": found.decoded}, f"{folder}/{rank}.pt")
    if rank >= 0:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_process_and_two_give_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "SHARD", 4)
    measure_apart(-1, str(tmp_path))
    multiprocessing.spawn(measure_apart, (str(tmp_path),), nprocs=2)
    alone, first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (-1, 0, 1))
    assert (alone["processes"], first["processes"]) == (1, 2)
    assert first["decoded"] + second["decoded"] == alone["decoded"] == 40 and 0 < first["decoded"] < 40
    for name, numbers in alone["numbers"].items():
        for found in (first, second):
            assert found["numbers"][name] == pytest.approx(numbers, rel=1e-6, abs=1e-6, nan_ok=True), name


def test_pairs_are_compared_with_their_partners() -> None:
    real = clips()
    fake = (real.int() + torch.randint(-9, 10, real.shape)).clamp(0, 255).to(torch.uint8)
    result = run(fake, real, ("psnr", "ssim", "gmsd"))
    wanted = psnr_frame_mean(fake, real)
    assert result["psnr"].value == pytest.approx(float(wanted.mean()), abs=1e-6)
    assert dict(zip(result.fake.clips, result.per_clip["psnr"], strict=True)) == pytest.approx(
        {f"{i:06d}": float(value) for i, value in enumerate(wanted)}, abs=1e-5
    )
    same = run(real, real, ("ssim", "gmsd"))
    assert same["ssim"].value == pytest.approx(1) and same["gmsd"].value == pytest.approx(0)


def test_measures_of_clips_stand_beside_those_of_real_ones() -> None:
    still = clips()[:, :, :1].expand(-1, -1, FRAMES, -1, -1)
    metrics = ("flicker", "motion", "dynamic", "smoothness", "cuts", "warping", "subject", "background", "drift")
    result = run(still, clips(), metrics)
    assert result["flicker"].value == pytest.approx(1) and result["flicker"].reference < 0.99
    assert result["motion"].value == pytest.approx(0, abs=1e-3) and result["motion"].reference > 0.01
    assert result["subject"].name == "subject_consistency@still" and result["subject"].value == pytest.approx(
        1, abs=1e-6
    )
    assert result["background"].value > result["background"].reference and result["cuts"].value == 0
    assert result["dynamic"].name == "dynamic_degree@flow" and result["dynamic"].value == 0
    assert result["smoothness"].value == 1 > result["smoothness"].reference
    assert [curve.name for curve in result.curves] == ["drift@still"] and result.curves[0].values == pytest.approx(
        (0, 0)
    )
    assert set(result.per_clip) == set(metrics) and len(result.per_clip["flicker"]) == 20


def test_inception_score_wants_a_classifier() -> None:
    result = run(clips(), clips(seed=1), ("is",))
    assert 1 <= result["IS[tiny]"].value <= 3 and result["is"].reference_name == "real"
    blind = FeatureNetwork("blind", "0", 3, False, linear().features)
    with pytest.raises(BadInput, match="blind is none"):
        run(clips(), metrics=("is",), network=blind)
    assert "is" not in [
        v.metric
        for v in measure(
            TensorSource(clips()), None, None, PROTOCOL, network=blind, frame_network=linear("still", True), resamples=0
        ).result.values
    ]


def test_renders_read_back_as_what_they_were_asked_for() -> None:
    scenes = [sample_scene(900_000 + i, SceneOptions(split="held-out")) for i in range(4)]
    levels = to_uint8(render_scenes(scenes)).movedim(-1, 1)
    told = [scene.attributes for scene in scenes]
    protocol = Protocol()
    result = measure(TensorSource(levels, attributes=told), None, ["readback"], protocol, resamples=10).result
    colour = result["readback colour"]
    assert colour.value >= 0.75 and colour.reference > 0.9 and colour.reference_name == "own accuracy"
    wrong = measure(TensorSource(levels, attributes=told[::-1]), None, ["readback"], protocol, resamples=10).result
    assert wrong["readback colour"].value < colour.value
    assert result.networks["readback"]["facts"]["own_accuracy"]["colour"] > 0.9
    half = measure(TensorSource(levels, attributes=[told[0], None, None, None]), None, ["readback"], protocol).result
    assert half["readback camera"].clips == 1


def test_everything_that_can_be_measured_is_and_the_rest_is_named() -> None:
    result = measure(
        TensorSource(clips()), None, None, PROTOCOL, network=linear(), frame_network=linear("still", True), resamples=0
    ).result
    moving = {"flicker", "warping", "motion", "dynamic", "smoothness", "cuts"}
    assert {value.metric for value in result.values} == {"is", *moving, "subject", "background", "drift"}
    assert any(
        line.startswith("fvd, kvd, fid, psnr, ssim, gmsd are left out") and "--real" in line for line in result.limits
    )
    assert all(value.low is None for value in result.values)


def test_numbers_of_small_networks_say_what_they_are_not() -> None:
    network = SceneClassifier({"motion": ["still", "spin"]}, widths=(4, 6, 8)).eval()
    tiny = FeatureNetwork("scenes-3d", "0", network.width, False, network.features)
    result = run(clips(), clips(seed=1), network=tiny)
    assert "FVD[scenes-3d]" in [v.name for v in result.values] and "not I3D" in " ".join(result.limits)
    i3d = FeatureNetwork("i3d", "0", 3, False, linear().features)
    assert [v.name for v in run(clips(), clips(seed=1), network=i3d).values][:2] == ["FVD", "KVD"]


@pytest.mark.parametrize(
    ("fake", "real", "metrics", "error", "words"),
    [
        (clips(4), None, ("fvd",), BadInput, "--real"),
        (clips(4)[:, :, :2], clips(4), ("fvd",), BadData, "4 frames"),
        (clips(4), clips(4)[..., :8, :8], ("fvd",), BadInput, "12x12 and real ones 8x8"),
        (clips(4), clips(3), ("psnr",), BadInput, "has no partner"),
        (clips(4), None, ("readback",), BadInput, "captions"),
        (clips(4), None, ("clip",), BadInput, "--clip"),
    ],
)
def test_what_cannot_be_measured_is_one_line(fake, real, metrics, error, words) -> None:
    with pytest.raises(error, match=words) as caught:
        run(fake, real, metrics)
    assert "\n" not in str(caught.value)


def test_clips_do_not_stay_in_memory() -> None:
    """Only rows outlive their batch."""
    import weakref

    alive: list[weakref.ref] = []
    most = 0

    def features(pixels: torch.Tensor) -> torch.Tensor:
        nonlocal most
        most = max(most, sum(ref() is not None for ref in alive))
        alive.append(weakref.ref(pixels))
        return pixels.float().mean((2, 3, 4))

    network = FeatureNetwork("watch", "0", 3, False, features)
    run(clips(64), clips(64, seed=1), network=network, batch=4, resamples=0)
    assert most <= 2 and len(alive) == 32

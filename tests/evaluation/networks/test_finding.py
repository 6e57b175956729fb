"""Networks by name and from files: what is refused, and what a number is called."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from longtake.errors import BadInput, UnknownName
from longtake.evaluation.networks import label, load_network
from longtake.evaluation.networks.contract import FeatureNetwork
from longtake.evaluation.networks.i3d import I3D

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Video(nn.Module):
    """The call of StyleGAN-V's I3D: means of the pixels, when everything was asked for."""

    def __init__(self, width: int = 400) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False):
        asked = float(rescale) + float(resize) + float(return_features)
        return x.float().mean([1, 2, 3, 4]).unsqueeze(1).repeat(1, self.width) + 1000 * asked


class Floats(nn.Module):
    """Takes floats only."""

    def forward(self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False):
        return torch.nn.functional.interpolate(x, size=[16, 4, 4], mode="trilinear").flatten(1)[:, :400]


class Plain(nn.Module):
    """Takes clips and nothing else."""

    def forward(self, x: torch.Tensor):
        return x.float().mean([2, 3, 4])


class Frames(nn.Module):
    """The call of NVIDIA's Inception."""

    def forward(self, x: torch.Tensor, return_features: bool = False):
        return x.float().mean([1, 2, 3]).unsqueeze(1).repeat(1, 2048) + float(return_features)


class Classes(nn.Module):
    """A classifier that gives probabilities."""

    def forward(self, x: torch.Tensor):
        return torch.stack([x.float().mean([1, 2, 3, 4]) / 255, 1 - x.float().mean([1, 2, 3, 4]) / 255], 1)


@pytest.fixture
def script(tmp_path):
    def write(module: nn.Module, name: str = "net.pt"):
        torch.jit.script(module).save(str(tmp_path / name))
        return tmp_path / name

    return write


def clip(count: int = 2, frames: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, frames, 8, 8), dtype=torch.uint8)


def test_names() -> None:
    assert label("FVD", "i3d") == "FVD" and label("FVD", "scenes-3d") == "FVD[scenes-3d]"
    assert label("FID", "inception") == "FID" and label("FID", "i3d") == "FID[i3d]"
    assert label("IS", "i3d") == "IS[i3d]" and label("IS", "c3d") == "IS"
    with pytest.raises(UnknownName, match="'scenes-3d'"):
        load_network("scenes3d")
    with pytest.raises(UnknownName, match="'random-2d'"):
        load_network("random-3d", frames=True)


def test_i3d_is_called_as_it_wants_to_be(script) -> None:
    path = script(Video())
    network, pixels = load_network(str(path)), clip()
    assert (network.name, network.width, len(network.hash)) == ("i3d", 400, 64)
    assert torch.allclose(network(pixels)[:, 0], pixels.float().mean((1, 2, 3, 4)) + 3000)
    assert network.facts["called with"] == "uint8"
    assert network.classify(pixels).sum(1).tolist() == pytest.approx([1, 1])


def test_a_file_that_takes_floats_gets_the_same_numbers_as_floats(script) -> None:
    network = load_network(str(script(Floats())))
    assert network.facts["called with"] == "float32 0-255"
    assert network(clip()).max() > 100


def test_other_files_get_a_name_of_their_own(script) -> None:
    network = load_network(f"mine={script(Plain())}")
    assert network.name == "mine" and network.width == 3 and label("FVD", network.name) == "FVD[mine]"
    assert torch.equal(network(pixels := clip()), pixels.float().mean((2, 3, 4)))
    inception = load_network(str(script(Frames(), "inception.pt")), frames=True)
    assert inception.name == "inception" and inception.width == 2048 and inception.frames
    assert inception(clip(frames=1)).shape == (2, 2048)
    c3d = load_network(f"c3d={script(Classes(), 'c3d.pt')}")
    assert torch.allclose(c3d.classify(pixels)[:, 0], pixels.float().mean((1, 2, 3, 4)) / 255, atol=1e-5)


def test_i3d_from_safetensors(tmp_path) -> None:
    torch.manual_seed(0)
    network = I3D()
    save_file(network.state_dict(), tmp_path / "i3d.safetensors")
    assert sum(p.numel() for p in network.parameters()) == 12_697_264  # as of the published RGB stream
    from longtake.evaluation.networks.i3d import load_i3d

    weights = dict(network.state_dict())
    loaded = load_i3d(weights, "x")
    pixels = torch.rand(1, 3, 9, 224, 224) * 2 - 1
    with torch.no_grad():
        assert torch.equal(loaded(pixels), network.eval()(pixels))
    for change, words in (
        ({"logits.conv3d.bias": None}, "no weight 'logits.conv3d.bias'"),
        ({"extra": torch.zeros(1)}, "'extra'"),
        ({"logits.conv3d.bias": torch.zeros(10)}, r"\(10,\)"),
    ):
        given = {name: value for name, value in {**weights, **change}.items() if value is not None}
        with pytest.raises(ValueError, match=words):
            load_i3d(given, "x")


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (lambda script, folder: script(Video(10)), "{}", ("10 features", "400", "myname=net.pt")),
        (lambda script, folder: script(Plain()), "{}", ("does not take", "StyleGAN-V", "myname=net.pt")),
        (lambda script, folder: script(Video()), "{}", None),
        (lambda script, folder: folder / "gone.pt", "{}", ("not there",)),
        (lambda script, folder: text(folder / "a.pt"), "{}", ("not TorchScript (", "): give a file of torch.jit.save")),
        (lambda script, folder: text(folder / "a.safetensors"), "{}", ("not a safetensors file",)),
        (lambda script, folder: weights(folder / "b.safetensors"), "{}", ("not I3D", "no weight", "NAME=FILE")),
        (lambda script, folder: weights(folder / "b.safetensors"), "mine={}", ("of I3D only",)),
        (lambda script, folder: pickled(folder / "c.pt"), "{}", ("not TorchScript",)),
        (lambda script, folder: "i3d", "{}", ("not shipped", "--network FILE", "scenes-3d")),
    ],
)
def test_a_file_that_is_not_what_it_says_is_one_line(script, tmp_path, make, name, words) -> None:
    given = name.format(make(script, tmp_path))
    if words is None:
        assert load_network(given).name == "i3d"
        return
    with pytest.raises(BadInput) as error:
        load_network(given)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value), error.value


def text(path):
    path.write_text("no network")
    return path


def weights(path):
    save_file({"a": torch.zeros(2)}, path)
    return path


def pickled(path):
    torch.save({"a": torch.zeros(2)}, path)
    return path


def test_pixels_of_another_kind_are_refused(script) -> None:
    network = load_network(str(script(Video())))
    for pixels in (torch.rand(2, 3, 16, 8, 8), clip()[0], clip().transpose(1, 2)):
        with pytest.raises(BadInput, match="takes uint8"):
            network(pixels)


def test_a_network_of_clips_is_no_network_of_frames(script) -> None:
    with pytest.raises(BadInput, match="sees clips"):
        load_network(f"i3d={script(Video())}", frames=True)


def test_a_network_that_changes_its_mind() -> None:
    network = FeatureNetwork("odd", "0", 5, False, lambda pixels: pixels.float().mean((2, 3, 4)))
    with pytest.raises(BadInput, match=r"\(2, 3\)"):
        network(clip())
    with pytest.raises(BadInput, match="no classifier"):
        network.classify(clip())

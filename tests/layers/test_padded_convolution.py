import pytest
import torch
import torch.nn.functional as F

from longtake.errors import BadInput, UnknownName
from longtake.layers.padded_convolution import PADDINGS, PaddedConv3d, PaddedTransposedConv3d


def clip(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kernel", [1, 3, 4])
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2), (1, 2, 2)])
def test_sizes_are_kept_halved_and_doubled_exactly(kernel, stride):
    if kernel < max(stride):
        return
    x = clip(2, 3, 4, 6, 8)
    assert PaddedConv3d(3, 5, kernel, stride)(x).shape == (2, 5, 4 // stride[0], 6 // stride[1], 8 // stride[2])
    if kernel == 4:
        assert PaddedTransposedConv3d(3, 5, kernel, stride)(x).shape == (
            2,
            5,
            4 * stride[0],
            6 * stride[1],
            8 * stride[2],
        )


def test_the_larger_half_of_an_even_kernel_is_in_front_on_every_axis():
    """Each axis alone against a plain one-dimensional convolution with two values in front and one behind."""
    line = torch.arange(1.0, 6)
    weight = torch.tensor([1.0, 10, 100, 1000])
    expected = F.conv1d(F.pad(line[None, None], (2, 1), mode="replicate"), weight[None, None])[0, 0]
    for axis in range(3):
        conv = PaddedConv3d(1, 1, 4)
        with torch.no_grad():
            conv.weight.zero_()
            conv.bias.zero_()
            place = [2, 2, 2]  # the tap that lies on the voxel itself
            for tap in range(4):
                place[axis] = tap
                conv.weight[0, 0, place[0], place[1], place[2]] = weight[tap]
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = 5
        torch.testing.assert_close(conv(line.view(shape)).flatten(), expected)


@pytest.mark.parametrize("mode", PADDINGS)
def test_the_border_is_torchs_of_that_name(mode):
    conv = PaddedConv3d(1, 1, 3, mode=mode)
    x = clip(1, 1, 4, 4, 4)
    torch.testing.assert_close(conv(x), F.conv3d(F.pad(x, (1,) * 6, mode=mode), conv.weight, conv.bias))


@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("kind", [PaddedConv3d, PaddedTransposedConv3d])
def test_needs_are_the_frames_that_an_output_reacts_to_and_no_others(kind, stride):
    conv, x = kind(1, 1, 4, stride), clip(1, 1, 8, 4, 4)
    plain = conv(x)
    reacts = torch.zeros(plain.shape[2], 8, dtype=torch.bool)
    for frame in range(8):
        changed = x.clone()
        changed[:, :, frame] += 1
        reacts[:, frame] = (conv(changed) - plain).abs().amax((0, 1, 3, 4)) > 1e-6
    for out in range(plain.shape[2]):
        first, last = conv.needs(out, out)
        assert reacts[out].nonzero().flatten().tolist() == list(range(max(first, 0), min(last, 7) + 1))
    assert conv.needs(1, 3) == (conv.needs(1, 1)[0], conv.needs(3, 3)[1])


@pytest.mark.parametrize("mode", PADDINGS)
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 1, 2), (2, 2, 2)])
def test_the_transposed_one_is_torchs_on_the_padded_clip(stride, mode):
    conv, x = PaddedTransposedConv3d(3, 5, 4, stride, mode).double(), clip(2, 3, 4, 6, 8).double().requires_grad_()
    flat = [count for axis in reversed(conv.pads) for count in axis]
    plain = F.conv_transpose3d(F.pad(x, flat, mode=mode), conv.weight, conv.bias, stride, padding=3)
    torch.testing.assert_close(conv(x), plain)
    wanted = torch.autograd.grad(plain.square().sum(), [x, conv.weight, conv.bias])
    torch.testing.assert_close(torch.autograd.grad(conv(x).square().sum(), [x, conv.weight, conv.bias]), wanted)


def test_what_cannot_be_padded_is_refused():
    with pytest.raises(UnknownName, match="replicat"):
        PaddedConv3d(1, 1, 3, mode="replicat")
    with pytest.raises(BadInput, match="reflect"):
        PaddedConv3d(1, 1, 3, mode="reflect")(clip(1, 1, 1, 4, 4))
    with pytest.raises(BadInput, match="kernel 3"):
        PaddedTransposedConv3d(1, 1, 3, (2, 2, 2))

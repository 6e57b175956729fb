"""Causal convolution: nothing looks ahead, and chunks with a state equal one shot."""

import pytest
import torch
import torch.nn.functional as F

from longtake.layers.causal_convolution import CausalConv3d, StreamState, convolve, pointwise


@pytest.mark.parametrize("kernel", [(3, 3, 3), (3, 1, 1), (1, 1, 1), (2, 3, 3)])
def test_equals_a_convolution_with_zeros_in_front(kernel):
    layer = CausalConv3d(3, 4, kernel).double()
    x = torch.randn(2, 3, 5, 6, 4, dtype=torch.float64)
    padded = F.pad(x, (kernel[2] // 2, kernel[2] // 2, kernel[1] // 2, kernel[1] // 2, kernel[0] - 1, 0))
    expected = F.conv3d(padded, layer.weight, layer.bias)
    assert layer(x).shape == expected.shape
    torch.testing.assert_close(layer(x), expected)


def test_strided_in_time_without_padding():
    layer = CausalConv3d(3, 4, (3, 1, 1), stride=(2, 1, 1), causal=False)
    x = torch.randn(1, 3, 9, 2, 2)
    torch.testing.assert_close(layer(x), F.conv3d(x, layer.weight, layer.bias, stride=(2, 1, 1)))


def test_a_later_frame_changes_no_earlier_output():
    layer = CausalConv3d(3, 4)
    x = torch.randn(1, 3, 6, 4, 4)
    changed = x.clone()
    changed[:, :, 3] += 1
    before, after = layer(x), layer(changed)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert (before[:, :, 3:] != after[:, :, 3:]).flatten(3).any(-1).all()  # and the kernel reaches frames 3, 4, 5


@pytest.mark.parametrize("cuts", [[1] * 7, [1, 4, 2], [3, 4], [2, 1, 1, 3], [7]])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (3, 1, 1), (1, 1, 1)])
def test_chunks_with_a_state_equal_one_shot(cuts, kernel):
    layer = CausalConv3d(2, 3, kernel).double()
    x = torch.randn(1, 2, 7, 4, 4, dtype=torch.float64)
    state = StreamState()
    streamed = torch.cat([layer(chunk, state) for chunk in x.split(cuts, dim=2)], dim=2)
    torch.testing.assert_close(streamed, layer(x))


def test_two_streams_share_a_layer_and_leave_nothing_on_it():
    layer = CausalConv3d(2, 3)
    names = set(vars(layer)), set(dict(layer.named_buffers()))
    a, b = torch.randn(2, 1, 2, 4, 4, 4)
    states = StreamState(), StreamState()
    pieces = [[layer(clip[:, :, i : i + 2], state) for clip, state in zip((a, b), states, strict=True)] for i in (0, 2)]
    for clip, streamed in zip((a, b), zip(*pieces, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(streamed, dim=2), layer(clip))
    assert (set(vars(layer)), set(dict(layer.named_buffers()))) == names


def test_the_state_holds_two_frames_however_long_the_chunk():
    layer, state = CausalConv3d(2, 3), StreamState()
    assert not state.has(layer) and state.history(layer) is None
    layer(torch.randn(1, 2, 40, 4, 4), state)
    kept = state.history(layer)
    assert kept.shape == (1, 2, 2, 4, 4)
    assert kept.untyped_storage().nbytes() == state.bytes() == 2 * 2 * 16 * 4  # a copy, not a view of 40 frames


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 2, 4, 5)])
def test_pointwise_equals_a_convolution_of_kernel_one(shape):
    weight, bias = torch.randn(6, 3, *[1] * (len(shape) - 2)), torch.randn(6)
    x = torch.randn(shape)
    convolve = F.conv2d if len(shape) == 4 else F.conv3d
    torch.testing.assert_close(pointwise(x, weight, bias), convolve(x, weight, bias))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dims", [2, 3])
def test_convolve_equals_torch_in_values_gradients_and_keeps_channels_last(batch, dims):
    """A small batch of one takes another way through torch; what it computes is the same."""
    theirs, layout = (F.conv2d, torch.channels_last) if dims == 2 else (F.conv3d, torch.channels_last_3d)
    x = torch.randn(batch, 4, *[6] * dims).contiguous(memory_format=layout).requires_grad_()
    weight, bias = torch.randn(8, 4, *[3] * dims, requires_grad=True), torch.randn(8, requires_grad=True)
    out = convolve(x, weight, bias, padding=(1,), stride=(2,))
    expected = theirs(x, weight, bias, 2, 1)
    assert out.is_contiguous(memory_format=layout)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    factor = torch.randn_like(expected)
    gradients = [torch.autograd.grad((y * factor).sum(), (x, weight, bias)) for y in (out, expected)]
    for ours, other in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolve(x, weight, bias, padding=(1,)).dtype == torch.bfloat16
    torch.testing.assert_close(convolve(x.double(), weight.double(), None), theirs(x.double(), weight.double()))

"""Linear layers, whose float32 products on a CPU are oneDNN's.

torch hands these products to MKL, which takes 2.2 times as long as oneDNN on an AMD processor with AVX-512, forward and
backward alike (benchmarks/layers.py). The numbers differ by rounding alone. Where oneDNN is missing, on other devices
and dtypes, under autocast, while compiling and for derivatives that are not plain gradients, torch's own are used.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear(nn.Linear):
    """`torch.nn.Linear`, computed by `linear`: (..., in_features) -> (..., out_features)."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight^T + bias, as `torch.nn.functional.linear`.

    Args:
        x: (..., N, I), of any strides. weight: (O, I). bias: (O,) or None.

    Returns:
        (..., N, O). Gradients of any order can be taken.
    """
    plain = _plain(x, weight, bias) and x.dtype == weight.dtype == torch.float32
    if not plain or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        return _Linear.apply(x, weight, bias)  # type: ignore[no-any-return]
    return _product(x, weight, bias)


def linear_gelu(layer: nn.Module, x: Tensor, approximate: str = "none") -> Tensor:
    """GELU of what a linear layer makes: (..., N, I) -> (..., N, O).

    Without gradients on a CPU, one of this module's layers does both in one pass; in bf16 the tanh form alone costs
    otherwise as much as the product. A layer that is hooked, wrapped or replaced (LoRA, quantisation) is called as it is.

    Args:
        layer: the layer.
        x: its input.
        approximate: "none" (exact) or "tanh".
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    if (
        torch.is_grad_enabled()
        or type(layer) is not Linear
        or layer._forward_hooks
        or layer._forward_pre_hooks
        or "forward" in vars(layer)
        or dtype not in (torch.float32, torch.bfloat16)
        or (x.dtype != layer.weight.dtype and not torch.is_autocast_enabled("cpu"))
        or not _plain(x, layer.weight, layer.bias)
    ):
        return F.gelu(layer(x), approximate=approximate)
    bias = None if layer.bias is None else layer.bias.to(dtype)
    return _product(x.to(dtype), layer.weight.to(dtype), bias, "gelu", approximate)


def linear_outputs(layer: nn.Module, x: Tensor, first: int, last: int) -> Tensor:
    """Outputs `first` to `last` - 1 of a linear layer: (..., N, I) -> (..., N, last - first).

    A layer that is hooked, wrapped or replaced is called as it is, and cut behind it.
    """
    if type(layer) is not Linear or layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer):
        return layer(x)[..., first:last]
    return linear(x, layer.weight[first:last], None if layer.bias is None else layer.bias[first:last])


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, then: str = "none", how: str = "") -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], how)


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether these are plain tensors on the CPU, and nothing but gradients is wanted of them."""
    return (
        _ONEDNN
        and not torch.compiler.is_compiling()
        and all(
            type(t) in (Tensor, nn.Parameter) and t.device.type == "cpu" and t.dtype == weight.dtype
            for t in (weight, bias)
            if t is not None
        )
        and type(x) in (Tensor, nn.Parameter)
        and x.device.type == "cpu"
        and x.is_floating_point()
        and x.ndim >= 2
        and x.numel() > 0
        and forward_ad._current_level < 0
        and not torch._C._are_functorch_transforms_active()
    )


class _Linear(torch.autograd.Function):
    """`linear` with its gradients, which are two such products and can be differentiated again."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            linear(grad, weight.t()) if of_x else None,
            linear(rows.t(), x.flatten(0, -2).t()) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )

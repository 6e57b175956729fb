"""What modules return, taken apart and put together."""

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput

from longtake.errors import Unsupported
from longtake.runtime.trees import pack, unpack


@pytest.mark.parametrize("kind", ["tensor", "tuple", "record"])
def test_there_and_back_in_the_dtypes_that_they_had(kind):
    one, two = torch.randn(2, 3), torch.randn(4).bfloat16()
    made = {"tensor": one, "tuple": (one, None, two), "record": Transformer2DModelOutput(sample=one)}[kind]
    form, tensors = pack(made)
    back = unpack(form, [tensor.double() for tensor in tensors])
    assert type(back) is type(made)
    if kind == "tuple":
        assert back[1] is None
        assert len(tensors) == 2
        assert torch.equal(back[2], two)
        assert back[2].dtype == torch.bfloat16
    first = {"tensor": back, "tuple": back[0], "record": getattr(back, "sample", None)}[kind]
    assert torch.equal(first, one)


def test_anything_else_is_refused_by_its_kind():
    with pytest.raises(Unsupported, match="dict"):
        pack({"sample": torch.randn(1)})

"""The shared nouns and the point of attention."""

import dataclasses

import pytest
import torch

from longtake.layers.attention import attend as dense
from longtake.runtime import AttendPoint, AttnCall, Site, StepInfo, TokenGrid, attend

SITE = Site("attn.joint", 1, 3, "joint", "blocks.1.attention", heads=2, head_dim=4)


def call():
    q, k, v = torch.randn(3, 2, 2, 7, 4)
    mask = torch.arange(7)[None, None, None] < 6
    return AttnCall(q, k, v, TokenGrid(1, 2, 2), text_len=3, text_at="last", mask=mask, scale=0.3)


def test_grid_counts_its_tokens_and_is_a_plain_triple():
    grid = TokenGrid(5, 8, 6)
    assert grid.tokens == 240
    assert tuple(grid) == (5, 8, 6)


def test_attend_is_dense_attention_with_the_calls_mask_and_scale():
    one = call()
    assert torch.equal(attend(SITE, one), dense(one.q, one.k, one.v, one.mask, scale=0.3))
    assert not torch.allclose(attend(SITE, one), dense(one.q, one.k, one.v, one.mask))
    assert not torch.allclose(attend(SITE, one), dense(one.q, one.k, one.v, scale=0.3))


def test_a_hook_on_the_point_sees_the_call_and_the_step_and_can_replace_the_result():
    point, seen = AttendPoint(SITE), []
    info = StepInfo(run=0, s=2, S=5, t=500.0, noise=0.5, sigma=0.5, branch="cond")

    def hook(module, args, output):
        seen.append((module.site, *args))
        return output * 2

    one = call()
    point.register_forward_hook(hook)
    assert torch.equal(point(one, info), attend(SITE, one) * 2)
    assert seen == [(SITE, one, info)]
    assert not list(point.parameters())


def test_steps_and_sites_cannot_be_changed_and_are_keys():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SITE.layer = 0
    assert {SITE: 1}[dataclasses.replace(SITE)] == 1

"""Pictures of routes show the gates."""

import pytest
import torch
from tests.recognition.token_routing.tiny import pictures, scattered, set_gates, tiny

from longtake.errors import BadInput
from longtake.recognition.token_routing import draw_depth, draw_grid


@torch.no_grad()
def test_the_grid_shows_each_nodes_gates_in_their_place():
    images = pictures(2, 64, 64)
    found = scattered()(images)
    picture = (draw_grid(found, 1, cell=16) + 1) / 2
    assert picture.shape == (3, 4 * 18 + 2, 3 * 18 + 2)
    node = next(n for n in found.routes if (n.scale, n.column) == (0, 1))
    cell = picture[:, 2:18, 20:36]  # one pixel for each token
    torch.testing.assert_close(cell[0], (0.98 * node.row[1] + 0.10 * node.down[1]).clamp_max(1).view(16, 16))
    assert not picture[:, 56:72, 38:54].any()  # nothing leaves the last node


@torch.no_grad()
def test_depth_is_the_share_of_blocks_that_a_place_took():
    images = pictures(2, 64, 64)
    assert tiny()(images).depth_map().eq(1).all()
    network = set_gates(tiny(), row=-1.0, down=1.0)
    network.node(0, 0).gate.logits.bias[0] = 1.0  # one of eight blocks is taken, by all
    depth = network(images).depth_map()
    assert depth.shape == (2, 16, 16)
    assert depth.eq(0.125).all()
    drawn = draw_depth(images, network(images))
    assert torch.equal(drawn[..., :64], images)
    assert drawn[..., 64:].unique().tolist() == [-0.75]


@torch.no_grad()
def test_there_is_nothing_to_draw_without_gates():
    with pytest.raises(BadInput, match="gate='none'"):
        draw_grid(tiny(gate="none")(pictures()))

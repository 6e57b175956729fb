"""Token routing: masked against gathered execution, seconds beside multiply-accumulates, by the share of open gates.

Calls of the nano backbone without gradients, float32: eight images of 64x64, two of 224x224. Weights matter to no time,
so they are random; gates are set by hand: the same share of every node's tokens at random places, for both kinds of edges.
The gates' own network is not run, but counted. Baseline: the same grid without gates, all of it computed.

That gathered equals masked is asserted before anything is timed.
"""

import torch
from torch import Tensor

from longtake.recognition.token_routing import RoutedFeatures, TokenRoutingBackbone, routing_config
from longtake.recognition.token_routing.node import Node
from timing import arguments, compare, save

SHAPES = {"8 of 64x64": (8, 64), "2 of 224x224": (2, 224)}
SHARES = (0.25, 0.5, 0.75, 1.0)


class Call:
    """One call. Args: share: of gates that are open, None = a network without gates."""

    def __init__(self, images: Tensor, share: float | None, execution: str | None = None) -> None:
        torch.manual_seed(0)
        gate = "none" if share is None else "hard"
        network = TokenRoutingBackbone(**routing_config("nano"), gate=gate, early_stop=0.0)
        self.network, self.images, self.execution = network.eval().requires_grad_(False), images, execution
        if share is not None:
            for node in network.nodes:
                if isinstance(node, Node) and node.gate is not None:
                    node.gate.forward = Chosen(share, node.gate.logits.out_features)  # type: ignore[method-assign]

    def __call__(self) -> RoutedFeatures:
        with torch.no_grad():
            return self.network(self.images, execution=self.execution)


class Chosen:
    """In place of a gate, which costs nothing then: the same share of tokens each time."""

    def __init__(self, share: float, edges: int) -> None:
        self.share, self.edges = share, edges
        self.known: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """(B, N, C) -> logits (B, N, edges)."""
        shape = (*x.shape[:2], self.edges)
        if shape not in self.known:
            order = torch.rand(shape, generator=torch.Generator().manual_seed(0)).argsort(1).argsort(1)
            self.known[shape] = (order < round(self.share * x.shape[1])).float() - 0.5
        return self.known[shape]


def main() -> None:
    """Time, print, write."""
    chosen = arguments(__doc__, repeats=5)
    results, notes = {}, {}
    for name, (count, side) in SHAPES.items():
        images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
        candidates = {"without gates": Call(images, None), "masked": Call(images, 0.5, "masked")}
        candidates |= {f"gathered {share}": Call(images, share, "gathered") for share in SHARES}
        one, other = candidates["masked"](), candidates["gathered 0.5"]()
        for a, b in zip(one.pyramid, other.pyramid, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        results[name] = found = compare(candidates, repeats=chosen.repeats)
        full = candidates["without gates"]().full
        notes[name] = {key: float(call().macs.mean()) / full for key, call in candidates.items() if key != "masked"}
        print(
            f"{name}\n{found}\n    multiply-accumulates", {key: round(value, 3) for key, value in notes[name].items()}
        )
    setting = {"size": "nano", "macs": notes, "threads": chosen.threads}
    print("written:", save("token_routing", results, setting=setting, folder=chosen.out))


if __name__ == "__main__":
    main()

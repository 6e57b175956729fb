"""Networks that another network was converted to: how they keep its configuration beside their own, and what they did."""

from typing import Any

from diffusers.configuration_utils import FrozenDict

from longtake.runtime.receipts import Receipt


class Converted:
    """Stands before the class of the network that is converted, `class FlexLatte(Converted, Latte)`.

    The first argument of such a class is `base`, the other network's configuration. What is saved is what the class takes;
    `config` shows both, so that whoever asks a Latte for its classes may ask this one.
    """

    _internal_dict: FrozenDict

    @property
    def config(self) -> FrozenDict:
        """The base's configuration, and this network's own."""
        return FrozenDict({**self._internal_dict["base"], **self._internal_dict})

    def receipt(self) -> Receipt | None:
        """What its calls without gradients did since this was last asked; None when there were none, or nothing to say.

        A pipeline asks before a run and behind it.
        """
        return None

    def keep(self, own: dict[str, Any]) -> None:
        """Leave these arguments alone in what is saved, now that the base has written its own beside them."""
        private = {name: value for name, value in self._internal_dict.items() if name.startswith("_")}
        self._internal_dict = FrozenDict({**private, **own})


def base_config(network: Any) -> dict[str, Any]:
    """Arguments that make a network like this one, and that JSON holds."""
    return {name: value for name, value in network.config.items() if not name.startswith("_")}

"""Putting functions around modules' forwards with the hooks of diffusers, and taking them away without a trace."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from diffusers.hooks.hooks import CacheContext, HookRegistry, ModelHook, StateManager
from torch import nn

if TYPE_CHECKING:
    from longtake.runtime.conductor import Bound, Conductor

HOOK = "longtake."
"""Our hooks' names begin with it; a module may have several, such as "longtake.part" and "longtake.attend"."""
ROOT = HOOK + "network"


class Around(ModelHook):
    """Puts a function around a module's forward."""

    def __init__(self, around: Callable[..., Any], bounds: Sequence["Bound"]) -> None:
        super().__init__()
        self.around, self.bounds = around, bounds
        self.new_forward = self._forward  # under this name diffusers looks for it

    def _forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return self.around(self.bounds, self.fn_ref.original_forward, args, kwargs)


class _Nothing:
    """State that diffusers' manager wants; ours is in the store."""

    def reset(self) -> None:
        pass


class Root(Around):
    """The hook of the network itself, which a pipeline tells the branch and the end of a run."""

    _is_stateful = True

    def __init__(self, around: Callable[..., Any], bounds: Sequence["Bound"], conductor: "Conductor") -> None:
        super().__init__(around, bounds)
        self.manager = StateManager(_Nothing)  # type: ignore[arg-type]
        self.conductor = conductor

    def reset_state(self, module: nn.Module) -> nn.Module:
        self.manager.reset()
        if self.conductor.announced is None:
            self.conductor.stack.steps.over()
        return module


def hook(module: nn.Module, name: str, around: Around) -> None:
    """Put a hook of ours around a module, as the outermost."""
    registry = HookRegistry.check_if_exists_or_initialize(module)
    registry.register_hook(around, name)
    if isinstance(around, Root):
        registry.invalidate_child_registries_cache()


def conductor_of(network: nn.Module) -> "Conductor | None":
    """The conductor that is attached to a network."""
    registry = getattr(network, "_diffusers_hook", None)
    hook = registry.get_hook(ROOT) if registry is not None else None
    return hook.conductor if isinstance(hook, Root) else None


def context_of(network: nn.Module) -> CacheContext | None:
    """What the pipeline says of the call that is going on, if it says anything."""
    root = network._diffusers_hook.get_hook(ROOT)  # type: ignore[union-attr,operator]
    return root.manager._context


def unhook(module: nn.Module, name: str) -> None:
    """Remove a hook of ours, and what an empty registry would leave behind."""
    registry: Any = module._diffusers_hook
    registry.remove_hook(name, recurse=False)
    if name == ROOT:
        registry.invalidate_child_registries_cache()
    if not registry.hooks:
        del module._diffusers_hook
        if getattr(module.forward, "__func__", None) is type(module).forward:
            module.__dict__.pop("forward", None)

"""Find what affects a module's results besides its weights: its attributes, code and hooks."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from .used_code import is_library

#: Attributes of modules that do not affect numbers.
_NOT_NUMBERS = frozenset(
    [
        *("_is_full_backward_hook", "_non_persistent_buffers_set", "_compiled_call_impl"),
        *("_is_torch_compile", "_parameters", "_buffers", "_modules"),
        *("_state_dict_hooks", "_state_dict_pre_hooks", "_forward_hooks_always_called"),
        *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
    ]
)
#: Registries of global module hooks for the forward pass and for gradients.
_GLOBAL_HOOKS = (
    *("_global_forward_hooks", "_global_forward_pre_hooks"),
    *("_global_backward_hooks", "_global_backward_pre_hooks"),
)


def scripted(module: nn.Module) -> str:
    """Return the code stored in a scripted, traced or exported module; "" for others."""
    if isinstance(module, torch.jit.ScriptModule):
        if not hasattr(module, "forward"):
            return ""
        graph = torch._C._jit_pass_canonicalize(module.inlined_graph)
        # Omit comments with source lines, and the numbers that torch adds to class names.
        return re.sub(r" *# .*|\.___torch_mangle_\d+", "", str(graph))
    return str(module.code) if isinstance(module, torch.fx.GraphModule) else ""


def attributes(module: nn.Module) -> dict[str, Any]:
    """Return a module's attributes besides weights and submodules, including the user's hooks."""
    if isinstance(module, torch.jit.ScriptModule):
        return {}
    relevant, is_graph = {}, isinstance(module, torch.fx.GraphModule)
    for name, value in vars(module).items():
        # Private attributes of a graph module describe its graph, whose code is hashed.
        by_compiler = name.startswith(("_torchdynamo", "_dynamo"))
        if name in _NOT_NUMBERS or by_compiler or (is_graph and name.startswith("_")):
            continue
        if name.endswith(("_hooks", "_hooks_with_kwargs")) and isinstance(value, OrderedDict):
            hooks = [h for h in value.values() if not type(h).__module__.startswith("camlens.")]
            if hooks:
                relevant[name] = hooks
        else:
            relevant[name] = value
    return relevant


def global_hooks() -> list[Any]:
    """Return the hooks that run for every module, except those of libraries."""
    registries = vars(torch.nn.modules.module)
    hooks = [h for name in _GLOBAL_HOOKS for h in registries[name].values()]
    return [hook for hook in hooks if not is_library(getattr(hook, "__module__", None))]

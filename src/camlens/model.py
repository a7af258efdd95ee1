"""Lookup of a model's layers by name, and checks that a model and its inputs can be explained."""

from __future__ import annotations

import difflib
import inspect
import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

_NAMED_BATCH = {3: "(N, C, L)", 4: "(N, C, H, W)", 5: "(N, C, D, H, W)"}


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel``.

    Explaining needs neither replicas nor a compiled graph, and neither runs hooks reliably.

    Example:
        >>> inner = nn.Conv2d(1, 1, 1)
        >>> unwrap(DataParallel(inner)) is inner
        True
    """
    while True:
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def named(model: nn.Module) -> dict[str, nn.Module]:
    """Return all submodules of ``model`` by dotted name, with compile wrappers removed."""
    return {
        name.replace("_orig_mod.", ""): unwrap(module)
        for name, module in model.named_modules()
        if name and not name.endswith("_orig_mod")
    }


def layer(model: nn.Module, name: str) -> nn.Module:
    """Return the module with a name that :func:`resolve` returned.

    Raises:
        ValueError: the module is a TorchScript module.
    """
    scripted = isinstance(model, torch.jit.ScriptModule)
    module = model if scripted else unwrap(model.get_submodule(name))
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(  # noqa: TRY004  a module, but of a kind that cannot be explained
            f"the layer {name!r} is a TorchScript module, which takes no hooks: use the model "
            "as it was before torch.jit.script or torch.jit.trace"
        )
    return module


def is_exported(model: nn.Module) -> bool:
    """Return whether a model is an exported program, whose graph calls no submodules."""
    if not isinstance(model, torch.fx.GraphModule):
        return False
    kinds = {node.op for node in model.graph.nodes if not str(node.target).endswith("_guards_fn")}
    return "call_module" not in kinds


def quantized(model: nn.Module) -> list[str]:
    """Return the names of a model's quantized modules, which do not pass gradients."""
    names = [n for n, module in named(model).items() if ".quantized" in type(module).__module__]
    return [name for name in names if name.rpartition(".")[0] not in names]


def resolve(model: nn.Module, layer: str | nn.Module) -> str:
    """Return the dotted name of a layer given by name or as the module itself.

    Raises:
        LookupError: the model has no such layer; the nearest names are listed.
        TypeError: ``layer`` is neither a string nor a module.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> resolve(net, "1"), resolve(net, net[0])
        ('1', '0')
    """
    modules = named(model)
    if isinstance(layer, nn.Module):
        wanted = unwrap(layer)
        for name, module in modules.items():
            if module is wanted:
                return name
        raise LookupError(
            f"this {type(layer).__name__} is not a part of {type(model).__name__}: "
            "pass a submodule of the model, or its dotted name"
        )
    if not isinstance(layer, str):
        raise TypeError(f"expected a layer's dotted name or module, got {type(layer).__name__}")
    for name in (layer, layer.replace("_orig_mod.", ""), layer.removeprefix("module.")):
        if name in modules:
            return name
    for name, module in model.named_modules(remove_duplicate=False):
        if name == layer:  # another name of a module that is registered in several places
            return resolve(model, module)
    if is_exported(model):
        raise LookupError(
            f"{type(model).__name__} has no layer {layer!r}: it is an exported program, whose "
            "graph does not call its submodules; explain the original model, or "
            "torch.export.unflatten(program)"
        )
    near = difflib.get_close_matches(layer, modules, n=5, cutoff=0.4) or list(modules)[-5:]
    raise LookupError(
        f"{type(model).__name__} has no layer {layer!r}; similar names: {', '.join(near) or 'none'}"
        ". camlens.find_layers(model, images) lists those that can be explained"
    )


def resolve_all(
    model: nn.Module, layers: str | nn.Module | Sequence[str | nn.Module]
) -> tuple[str, ...]:
    """Return the dotted names of one or several layers, without duplicates.

    Raises:
        LookupError: see :func:`resolve`.
        TypeError: see :func:`resolve`.
        ValueError: no layer is given.
    """
    if isinstance(layers, Sequence) and not isinstance(layers, str):
        names = tuple(dict.fromkeys(resolve(model, layer) for layer in layers))
    else:
        names = (resolve(model, layers),)
    if not names:
        raise ValueError("expected at least one layer, got an empty sequence")
    return names


def check_model(model: object) -> nn.Module:
    """Return a model without its wrappers, after checking that it can be explained.

    Raises:
        TypeError: it is not a module.
        ValueError: a parameter or buffer was made in inference mode.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    model = unwrap(model)
    if any(t.is_inference() for t in itertools.chain(model.parameters(), model.buffers())):
        raise ValueError(
            "the model's parameters or buffers were made in torch.inference_mode(), which autograd "
            "cannot use: build or load the model outside of it"
        )
    return model


def check_images(images: object) -> Tensor:
    """Return images after checking that they are a floating-point batch.

    Raises:
        TypeError: they are not a tensor, or not floating point.
        ValueError: they are not (N, C, L), (N, C, H, W) or (N, C, D, H, W), or empty.
    """
    if not isinstance(images, Tensor):
        raise TypeError(
            f"expected images as a (N, C, H, W) tensor, got {type(images).__name__}: convert with "
            "torchvision.transforms.functional.to_tensor(image).unsqueeze(0)"
        )
    if images.ndim not in _NAMED_BATCH or 0 in images.shape:
        raise ValueError(
            f"expected images as {', '.join(_NAMED_BATCH.values())} with no empty dimension, got "
            f"{tuple(images.shape)}"
        )
    if not images.is_floating_point():
        raise TypeError(
            f"expected floating-point images as the model takes them, got {images.dtype}: "
            "convert with images.float() / 255 and normalise as in training"
        )
    return images


def check_batched(model: nn.Module, images: Tensor) -> None:
    """Check that three-dimensional images are (N, C, L), not (C, H, W) without a batch dimension.

    Raises:
        ValueError: the images have three dimensions and the model's convolutions are 2-D.
    """
    if images.ndim != 3:
        return
    kinds = {type(m).__name__ for m in model.modules()}
    if "Conv2d" in kinds and "Conv1d" not in kinds:
        raise ValueError(
            f"expected images as (N, C, H, W), got {tuple(images.shape)}: add the batch dimension "
            "with images.unsqueeze(0)"
        )


def check_mode(model: nn.Module) -> None:
    """Check that the model is in evaluation mode, so that its passes are deterministic.

    Raises:
        ValueError: the model, or a part of it, is in training mode.
    """
    if is_exported(model):
        _check_exported_mode(model)
        return
    if not any(is_training(module) for module in model.modules()):
        return
    training = [n or "the model itself" for n, m in model.named_modules() if is_training(m)]
    raise ValueError(
        f"the model is in training mode ({', '.join(training[:3])}"
        f"{', ...' if len(training) > 3 else ''}): dropout and batch statistics would make "
        "the explanation random; call model.eval() first, or explain with create_graph=True to "
        "train with the maps"
    )


def is_training(module: nn.Module) -> bool:
    """Return whether a module is in training mode; a frozen TorchScript module has no mode."""
    return getattr(module, "training", False)


def _check_exported_mode(model: nn.Module) -> None:
    """Check the mode that a program was exported in, which its modules' flags do not show."""
    if not isinstance(model, torch.fx.GraphModule):
        return
    for node in model.graph.nodes:
        name = getattr(node.target, "__name__", "").partition(".")[0]
        position = _TRAINING_ARGUMENT.get(name, len(node.args))
        if True in node.args[position : position + 1]:
            raise ValueError(
                f"the model is a program that was exported in training mode ({node.name}): call "
                "model.eval() before torch.export.export"
            )


#: By operation of an exported program, the position of its argument ``train``.
_TRAINING_ARGUMENT = {
    "dropout": 2,
    "feature_dropout": 2,
    "alpha_dropout": 2,
    "feature_alpha_dropout": 2,
    "batch_norm": 5,
    "instance_norm": 5,
}


def check_keywords(model: nn.Module, keywords: Iterable[str]) -> None:
    """Check that a misspelt option of camlens is not passed to the model as an input.

    Raises:
        TypeError: ``target`` was given to a model that has no such input.
    """
    if "target" in keywords and "target" not in inspect.signature(model.forward).parameters:
        raise TypeError("unknown option 'target': pass what to explain as targets=...")

"""Which layers can be explained, and how their outputs become (N, C, h, w)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from . import checks, modules, taps

#: Turns a layer's output (N, ...) into (N, C, h, w), by moving values only.
Layout = Callable[[Tensor], Tensor]

_POOLS = (
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.AvgPool2d,
    nn.MaxPool2d,
    nn.LPPool2d,
    nn.FractionalMaxPool2d,
    nn.Upsample,
)
_PASSED_OVER = (*_POOLS, nn.Dropout, nn.Dropout2d, nn.Identity, nn.Softmax)
_CHANNELS_FIRST = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.GroupNorm, *_POOLS)
#: More tokens than this in front of the patches are no known vision transformer.
_MOST_PREFIX_TOKENS = 16


def nchw(output: Tensor) -> Tensor:
    """Take (N, C, h, w) as it is: the layout of convolutions."""
    return output


def nhwc(output: Tensor) -> Tensor:
    """Turn (N, h, w, C), as inside Swin and ConvNeXt blocks, into (N, C, h, w)."""
    return output.permute(0, 3, 1, 2)


def tokens(prefix: int, grid: tuple[int, int]) -> Layout:
    """Return the layout of a transformer's (N, prefix + h*w, C).

    Args:
        prefix: how many class, distillation or register tokens stand before the patches.
        grid: (h, w) of the patches, in rows.

    Example:
        >>> tokens(1, (14, 14))(torch.zeros(2, 197, 768)).shape
        torch.Size([2, 768, 14, 14])
    """

    def layout(output: Tensor) -> Tensor:
        patches = output[:, prefix:].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], *grid)

    return layout


def infer_layout(output: Tensor, module: nn.Module, size: tuple[int, int]) -> Layout:
    """Find out how a layer's output is laid out.

    The kind of module decides where it can (a convolution is NCHW, a plain LayerNorm or Linear
    is channels-last); otherwise the layout whose grid has the proportions of the image, NCHW
    if both have. Of tokens the fewest prefix tokens are assumed that leave a grid of patches
    into which the image divides without a rest.

    Args:
        output: the layer's output.
        module: the layer.
        size: (H, W) of the images.

    Raises:
        ValueError: the output has no spatial map, or none that can be inferred.
    """
    if output.ndim == 4:
        if isinstance(module, _CHANNELS_FIRST):
            return nchw
        if type(module) in (nn.LayerNorm, nn.Linear):
            return nhwc
        a, b, c = output.shape[1:]
        return nhwc if _distortion((a, b), size) < _distortion((b, c), size) else nchw
    if output.ndim == 3 and (found := _token_grid(output.shape[1], size)):
        return tokens(*found)
    raise ValueError(
        f"{type(module).__name__} gives {tuple(output.shape)} for images of {size}: expected "
        "(N, C, h, w), (N, h, w, C) or (N, tokens, C) with a grid of the image's proportions. "
        "Choose another layer, or say how to read this one with "
        "layout=camlens.layers.tokens(prefix, (h, w)) or a function of your own"
    )


def _distortion(grid: tuple[int, int], size: tuple[int, int]) -> float:
    """Return how far a grid's proportions are from the image's, 1 being none at all."""
    ratio = (grid[0] * size[1]) / (grid[1] * size[0])
    return max(ratio, 1 / ratio)


def _token_grid(count: int, size: tuple[int, int]) -> tuple[int, tuple[int, int]] | None:
    patches = (p for p in range(1, min(size) + 1) if size[0] % p == size[1] % p == 0)
    grids = [(size[0] // p, size[1] // p) for p in patches]
    fitting = [(count - h * w, (h, w)) for h, w in grids if count - h * w >= 0 and h * w > 1]
    best = min(fitting, default=None)
    return best if best and best[0] <= min(_MOST_PREFIX_TOKENS, count // 2) else None


def as_maps(output: Tensor, layout: Layout, name: str) -> Tensor:
    """Apply a layout and check what comes out.

    Raises:
        ValueError: it is not (N, C, h, w).
    """
    try:
        maps = layout(output)
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"the layout given for {name!r} does not fit its output {tuple(output.shape)}: {error}"
        ) from error
    if not isinstance(maps, Tensor) or maps.ndim != 4 or len(maps) != len(output):
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(
            f"the layout turned {name!r}'s output {tuple(output.shape)} into {got}; expected "
            f"(N, C, h, w) with N = {len(output)}"
        )
    return maps


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer that can be explained.

    Attributes:
        name: dotted name, as the explainers take it.
        type: class name of the module.
        channels: number of channels C.
        grid: (h, w), the finest detail its map can show.
    """

    name: str
    type: str
    channels: int
    grid: tuple[int, int]


def find_layers(model: nn.Module, images: Tensor, *inputs: Any, **keywords: Any) -> list[Layer]:
    """List the layers with a spatial output, in the order in which they finish.

    Args:
        model: any module; it runs once, without gradients, and is left as it was.
        images: (N, C, H, W), as the model takes them; one image is enough.
        inputs: further positional inputs of the model.
        keywords: keyword inputs of the model.

    Returns:
        One :class:`Layer` for each module that gives (N, C, h, w), (N, h, w, C) or tokens
        with more than one cell. A layer that runs several times is listed at its last run.

    Raises:
        TypeError: the model is no module, or the images no floating-point tensor.
        ValueError: the images are not (N, C, H, W), or the model is in training mode.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
        >>> for layer in find_layers(net.eval(), torch.rand(1, 3, 8, 8)):
        ...     print(layer)
        Layer(name='0', type='Conv2d', channels=8, grid=(6, 6))
        Layer(name='1', type='ReLU', channels=8, grid=(6, 6))
    """
    checks.check_model(model)
    checks.check_images(images)
    model = modules.unwrap(model)
    checks.check_mode(model)
    everything = modules.named(model)
    size = (images.shape[-2], images.shape[-1])
    hookable = [n for n, m in everything.items() if not isinstance(m, torch.jit.ScriptModule)]
    found: dict[str, Layer] = {}

    def look(name: str, _: Any, output: Any) -> None:
        found.pop(name, None)
        tensor = taps.tensor_of(output)
        if tensor is not None and (layer := _inspect(name, everything[name], tensor, size)):
            found[name] = layer

    with torch.inference_mode(False), torch.no_grad(), taps.watch(model, hookable, look):
        model(images, *inputs, **keywords)
    return list(found.values())


def _inspect(name: str, module: nn.Module, output: Tensor, size: tuple[int, int]) -> Layer | None:
    try:
        maps = infer_layout(output, module, size)(output)
    except ValueError:
        return None
    channels, h, w = maps.shape[1:]
    return Layer(name, type(module).__name__, channels, (h, w)) if h * w > 1 else None


def last_layer(model: nn.Module, images: Tensor, *inputs: Any, **keywords: Any) -> str:
    """Return the last layer with a spatial output on which the model's output depends there.

    Poolings are passed over (VGG's adaptive pooling may only repeat a single cell), and so are
    softmaxes (attention over tokens has the shape of a map, but is none) and
    layers after which only a class token counts, as at the end of a ViT: they have a grid, but
    no gradient on it. It costs a forward pass and a forward and backward pass; one image will do.

    Raises:
        LookupError: there is none.
    """
    model = modules.unwrap(model)
    everything = modules.named(model)
    size = (images.shape[-2], images.shape[-1])
    candidates: list[Layer] = []
    pooled: Layer | None = None
    for layer in find_layers(model, images, *inputs, **keywords):
        # A container that ends in a pooling gives the pooling's output.
        ends_pooled = pooled and pooled.name.startswith(layer.name + ".")
        if isinstance(everything[layer.name], _PASSED_OVER) or (
            ends_pooled and pooled and pooled.grid == layer.grid
        ):
            pooled = layer
        else:
            candidates.append(layer)
            pooled = None
    if names := [layer.name for layer in candidates]:
        # With gradients on, as a model may leave a no_grad block of its own on the way.
        with taps.tap(model, names, gradients=True) as tapped, torch.enable_grad():
            outputs = _floats(model(images, *inputs, **keywords))
            # A sum of squares, since a softmax's plain sum is a constant.
            squares = [x.float().square().sum() for x in outputs if x.requires_grad]
            grads = torch.autograd.grad(squares, tapped.outputs(), allow_unused=True)
        for name, grad in reversed(list(zip(names, grads, strict=True))):
            if grad is not None and infer_layout(grad, everything[name], size)(grad).any():
                return name
    raise LookupError(
        f"{type(model).__name__} has no layer with a spatial output that its output depends on "
        f"for images of {tuple(images.shape)}: name one, camlens.GradCAM(model, layer)"
    )


def _floats(outputs: Any) -> list[Tensor]:
    """Return all floating-point tensors inside nested tuples, lists, dicts and dataclasses."""
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() else []
    if isinstance(outputs, str):
        return []
    if dataclasses.is_dataclass(outputs):
        outputs = vars(outputs)
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs
    return [x for part in parts for x in _floats(part)] if isinstance(parts, Iterable) else []

"""Convolutions as matrix products, which train faster on CPUs.

oneDNN's bfloat16 convolutions spend most of a VGG19's training step on the weight gradients of the
deepest layers, which have many channels and few positions. For these, matrix products with the
unfolded input are faster: ``benchmarks/training_step.py`` compares both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

#: With fewer channels, or on larger maps, oneDNN's convolutions are as fast.
_FEWEST_CHANNELS, _MOST_PLACES = 512, 36


def _unfolded(images: Tensor) -> Tensor:
    """Return the 3x3 neighbourhoods of all positions: (N, C, H, W) -> (N * H * W, 9 * C)."""
    _, _, height, width = images.shape
    padded = functional.pad(images.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return torch.cat(shifted, dim=3).flatten(0, 2)


def _folded(rows: Tensor, like: Tensor) -> Tensor:
    """Return rows (N * H * W, C) as (N, C, H, W) in channels-last order."""
    count, _, height, width = like.shape
    return rows.view(count, height, width, -1).permute(0, 3, 1, 2)


class _Convolve(torch.autograd.Function):
    """A 3x3 convolution with padding 1, and its gradients."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        """Convolve (N, C, H, W) with weights (O, C, 3, 3) to (N, O, H, W)."""
        ctx.save_for_backward(images, weight)
        return _folded(_unfolded(images) @ weight.permute(2, 3, 1, 0).flatten(0, 2), images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the gradients of images and weights."""
        images, weight = ctx.saved_tensors
        (gradient,) = gradients
        of_images = None
        if ctx.needs_input_grad[0]:
            flipped = weight.flip(2, 3).permute(2, 3, 0, 1).flatten(0, 2)
            of_images = _folded(_unfolded(gradient) @ flipped, images)
        rows = gradient.permute(0, 2, 3, 1).flatten(0, 2)
        of_weight = (rows.t() @ _unfolded(images)).view(weight.shape[0], 3, 3, -1)
        return of_images, of_weight.permute(0, 3, 1, 2)


class MatrixConv2d(nn.Conv2d):
    """A 3x3 convolution with padding 1, computed as a matrix product where that is faster.

    That is on a CPU, in bfloat16, for maps of few positions. Otherwise it is a ``Conv2d``.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch's name
        """Convolve (N, C, H, W) to (N, O, H, W)."""
        places = input.shape[-2] * input.shape[-1]
        if (
            input.device.type != "cpu"
            or places > _MOST_PLACES
            or not torch.is_autocast_enabled("cpu")
        ):
            return super().forward(input)
        dtype = torch.get_autocast_dtype("cpu")
        found: Tensor = _Convolve.apply(input.to(dtype), self.weight.to(dtype))
        return found if self.bias is None else found + self.bias.to(dtype).view(-1, 1, 1)


def use_matrix_products(model: nn.Module) -> None:
    """Convert a model's deepest 3x3 convolutions in place; weights and names stay the same."""
    for layer in model.modules():
        if (
            type(layer) is nn.Conv2d
            and layer.out_channels >= _FEWEST_CHANNELS
            and (layer.kernel_size, layer.stride, layer.padding) == ((3, 3), (1, 1), (1, 1))
            and (layer.dilation, layer.groups, layer.padding_mode) == ((1, 1), 1, "zeros")
        ):
            layer.__class__ = MatrixConv2d

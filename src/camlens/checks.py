"""What every entry point asks of a model and its images, before anything runs."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable

from torch import Tensor, nn


def check_model(model: object) -> None:
    """Check that a model is a module.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")


def check_images(images: object) -> None:
    """Check that images are a floating-point batch.

    Raises:
        TypeError: they are no tensor, or not of floating point.
        ValueError: they are not (N, C, H, W), or empty.
    """
    if not isinstance(images, Tensor):
        raise TypeError(
            f"expected images as a (N, C, H, W) tensor, got {type(images).__name__}: convert with "
            "torchvision.transforms.functional.to_tensor(image).unsqueeze(0)"
        )
    if images.ndim != 4 or 0 in images.shape:
        hint = ": add the batch dimension with images.unsqueeze(0)" if images.ndim == 3 else ""
        raise ValueError(
            f"expected images as (N, C, H, W) with no dimension empty, got "
            f"{tuple(images.shape)}{hint}"
        )
    if not images.is_floating_point():
        raise TypeError(
            f"expected floating-point images as the model takes them, got {images.dtype}: "
            "convert with images.float() / 255 and normalise as in training"
        )


def check_mode(model: nn.Module) -> None:
    """Check that a model can be run and differentiated without changing it.

    Raises:
        ValueError: it, or a part of it, is in training mode or was made in inference mode.
    """
    training = [name or "the model itself" for name, m in model.named_modules() if m.training]
    if training:
        raise ValueError(
            f"the model is in training mode ({', '.join(training[:3])}"
            f"{', ...' if len(training) > 3 else ''}): dropout and batch statistics would make "
            "the explanation random; call model.eval() first"
        )
    if any(t.is_inference() for t in itertools.chain(model.parameters(), model.buffers())):
        raise ValueError(
            "the model's parameters or buffers were made in torch.inference_mode(), which autograd "
            "cannot use: build or load the model outside of it"
        )


def check_keywords(model: nn.Module, keywords: Iterable[str]) -> None:
    """Check that no misspelt option of ours goes to the model as an input of its own.

    Raises:
        TypeError: ``target`` was given to a model that has no such input.
    """
    if "target" in keywords and "target" not in inspect.signature(model.forward).parameters:
        raise TypeError("unknown option 'target': what to explain is given as targets=...")

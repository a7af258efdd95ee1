"""Weights under torchvision's names: of ImageNet, downloaded once, or of a file."""

from __future__ import annotations

import hashlib
import http.client
import pickle
import zipfile
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from .architectures import EmotionVGG
from .weights import mismatch


def load_into(model: EmotionVGG, architecture: str, file: Path | None = None) -> dict[str, str]:
    """Give a network torchvision's weights, but for the layers of its own head.

    Args:
        model: gets them.
        architecture: "vgg19" or "vgg19_bn".
        file: torchvision's file, or a state dict of the same names as safetensors; default: the
            one in torch's cache, which is downloaded if it is not there.

    Returns:
        ``weights_sha256`` of the file, and ``pretrained_on``: "ImageNet" if it is the file that
        torchvision published, what a safetensors file says of itself, else the file's name.

    Raises:
        FileNotFoundError: there is no such file, and it could not be downloaded.
        ValueError: the file is damaged, or holds the weights of another network.
    """
    path = locate(architecture) if file is None else file
    state = _read(path)
    prefix = "features."
    features = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if found := mismatch(model.features, features):
        raise ValueError(
            f"{path} does not hold torchvision's weights of {architecture}: of its features, "
            f"{found}"
        )
    model.features.load_state_dict(features)
    _load_head(model, state)
    digest = _sha256(path)
    return {"weights_sha256": digest, "pretrained_on": _pretrained_on(path, digest, architecture)}


def _pretrained_on(path: Path, digest: str, architecture: str) -> str:
    if digest.startswith(_digest_in(_url(architecture))):
        return "ImageNet"
    if path.suffix != ".safetensors":
        return path.name
    with safe_open(path, framework="pt") as file:
        said: str = (file.metadata() or {}).get("pretrained_on", path.name)
    return said


def _load_head(model: EmotionVGG, state: dict[str, Tensor]) -> None:
    # The two large layers of the original head come from ImageNet too; our own head starts random.
    layers = [m for m in model.head.modules() if isinstance(m, nn.Linear)]
    for layer, name in zip(layers, ("classifier.0", "classifier.3"), strict=False):
        given = {k: state[f"{name}.{k}"] for k in ("weight", "bias") if f"{name}.{k}" in state}
        if not mismatch(layer, given):
            layer.load_state_dict(given)


def locate(architecture: str) -> Path:
    """Return the checked file of torchvision's weights, downloading it if it is not there.

    The file's name ends in the first eight digits of its SHA-256.

    Raises:
        FileNotFoundError: it is not in torch's cache, and could not be downloaded.
        ValueError: the file in the cache is not the one that torchvision published.
    """
    url = _url(architecture)
    name = url.rsplit("/", 1)[-1]
    path: Path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Written to a temporary file, checked, and only then renamed.
            torch.hub.download_url_to_file(url, str(path), _digest_in(name), progress=True)
        except (http.client.HTTPException, OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"no ImageNet weights of {architecture}: {path} is absent, and {url} could not be "
                f"downloaded ({error}). Put the file there from another machine, give it with "
                "--weights FILE, or start from random weights with --weights none."
            ) from error
    digest = _sha256(path)
    if not digest.startswith(_digest_in(name)):
        raise ValueError(
            f"{path} is damaged: its SHA-256 begins with {digest[:8]} instead of "
            f"{_digest_in(name)}. Remove it, and it is downloaded again."
        )
    return path


def _url(architecture: str) -> str:
    url: str = torchvision.models.get_model_weights(architecture).DEFAULT.url
    return url


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_in(name: str) -> str:
    return name.removesuffix(".pth").rsplit("-", 1)[-1]


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # weights_only: a pickle that would run code is refused.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is damaged, or holds more than tensors, which could execute code: give "
            "torchvision's own file of weights, or a state dict as safetensors"
        ) from error
    except (
        *(SafetensorError, OSError, RuntimeError, EOFError, ValueError),
        *(KeyError, zipfile.BadZipFile),
    ) as error:
        raise ValueError(f"{path} is not a whole file of weights: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} does not hold a state dict, a name and a tensor each")
    return state

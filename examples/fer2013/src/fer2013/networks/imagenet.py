"""Load weights with torchvision's names: ImageNet's, downloaded once, or those of a file."""

from __future__ import annotations

import http.client
import pickle
import zipfile
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ..files import sha256
from .architectures import EmotionVGG
from .weights import mismatch


def load_into(model: EmotionVGG, architecture: str, file: Path | None = None) -> dict[str, str]:
    """Load pretrained weights into a VGG, except for the layers that torchvision's VGG lacks.

    Args:
        model: the network.
        architecture: "vgg19" or "vgg19_bn".
        file: torchvision's file, or a state dict with the same names as safetensors; default: the
            file in torch's cache, downloaded if necessary.

    Returns:
        ``weights_sha256`` of the file, and ``pretrained_on``: "ImageNet" for torchvision's file,
        else what a safetensors file's metadata says, else the file's name.

    Raises:
        FileNotFoundError: there is no such file, and the download failed.
        ValueError: the file is damaged, or its weights belong to another architecture.
    """
    url: str = torchvision.models.get_model_weights(architecture).DEFAULT.url
    path = _download(url, architecture) if file is None else file
    state = _read(path)
    prefix = "features."
    features = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if found := mismatch(model.features, features):
        raise ValueError(
            f"{path} does not have torchvision's weights of {architecture}: among its features, "
            f"{found}"
        )
    model.features.load_state_dict(features)
    # The two large layers of the original head are pretrained too; the new head stays random.
    layers = [m for m in model.head.modules() if isinstance(m, nn.Linear)]
    for layer, name in zip(layers, ("classifier.0", "classifier.3"), strict=False):
        given = {k: state[f"{name}.{k}"] for k in ("weight", "bias") if f"{name}.{k}" in state}
        if not mismatch(layer, given):
            layer.load_state_dict(given)
    digest, pretrained_on = sha256(path), path.name
    if digest.startswith(_digest_in(url)):
        pretrained_on = "ImageNet"
    elif path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as opened:
            pretrained_on = (opened.metadata() or {}).get("pretrained_on", path.name)
    return {"weights_sha256": digest, "pretrained_on": pretrained_on}


def _download(url: str, architecture: str) -> Path:
    """Return the cached file, downloading it if necessary, and verify its checksum."""
    path: Path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), _digest_in(url), progress=True)
        except (http.client.HTTPException, OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"no ImageNet weights of {architecture}: {path} does not exist, and downloading "
                f"{url} failed ({error}). Copy the file there from another machine, pass it with "
                "--weights FILE, or start from random weights with --weights none."
            ) from error
    digest = sha256(path)
    if not digest.startswith(_digest_in(url)):
        raise ValueError(
            f"{path} is damaged: its SHA-256 begins with {digest[:8]} instead of "
            f"{_digest_in(url)}. Remove it to download it again."
        )
    return path


def _digest_in(url: str) -> str:
    """Return the first eight digits of the SHA-256, with which torchvision's names end."""
    return url.removesuffix(".pth").rsplit("-", 1)[-1]


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # weights_only refuses a pickle that would run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is damaged, or contains objects other than tensors, which could execute code: "
            "use torchvision's own file, or a state dict as safetensors"
        ) from error
    except (
        *(SafetensorError, OSError, RuntimeError, EOFError, ValueError),
        *(KeyError, zipfile.BadZipFile),
    ) as error:
        raise ValueError(f"{path} is not a complete weights file: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} is not a state dict, which maps names to tensors")
    return state

"""Models of transformers, small ones of each kind, and image towers of open_clip."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from architectures import BESIDE, FIRST, LAST, Architecture, BothSigns, pair, tokens
from torch import Tensor, nn

import camlens

_VIT = {
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 96,
    "patch_size": 16,
}
_DINO = {name: value for name, value in _VIT.items() if name != "intermediate_size"}
_SWIN = {
    "image_size": 128,
    "window_size": 4,
    "embed_dim": 24,
    "depths": [1, 1, 2],
    "num_heads": [2, 2, 4],
}
_STAGES = {"hidden_sizes": [16, 24, 32, 64], "depths": [1, 1, 2, 1]}
_MOBILE = {
    "hidden_sizes": [24, 32, 40],
    "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 64],
    "image_size": 128,
}
_YOLOS = _VIT | {"image_size": [96, 128], "num_detection_tokens": 7}
_SOUND = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 64,
    "conv_dim": (32, 32, 32, 32),
    "conv_stride": (5, 4, 2, 2),
    "conv_kernel": (10, 8, 4, 4),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 32,
}
_TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 99,
    "bos_token_id": 0,
    "eos_token_id": 98,
    "projection_dim": 24,
}

#: What stands before "ForImageClassification", size of the images, options, default layer, ...
CLASSIFIERS: list[Any] = [
    ("ViT", 96, _VIT, "vit.layers.2", tokens(1), (6, 6)),
    ("DeiT", 96, _VIT, "deit.layers.2", tokens(2), (6, 6)),
    ("Dinov2", (96, 160), _DINO, "dinov2.layernorm", tokens(1), (6, 10)),
    (
        "Dinov2WithRegisters",
        96,
        _DINO,
        "dinov2_with_registers.layernorm",
        tokens(5),
        (6, 6),
    ),
    ("Beit", 96, _VIT, "beit.layers.3", tokens(1), (6, 6)),
    ("Swin", 128, _SWIN, "swin.layernorm", LAST, (8, 8)),
    ("Swinv2", 128, _SWIN, "swinv2.layernorm", LAST, (8, 8)),
    ("ConvNext", (96, 128), _STAGES, "convnext.encoder.stages.3", FIRST, (3, 4)),
    ("ResNet", 128, _STAGES, "resnet.encoder.stages.3", FIRST, (4, 4)),
    ("Segformer", (96, 128), _STAGES, "segformer.stages.3", FIRST, (3, 4)),
    ("MobileViT", 128, _MOBILE, "mobilevit.conv_1x1_exp", FIRST, (4, 4)),
]


class TextTower(nn.Module):
    """A CLIP model with texts of its own, so that it takes images alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        generator = torch.Generator("cpu").manual_seed(2)
        self.register_buffer("ids", torch.randint(1, 90, (3, 8), generator=generator, device="cpu"))

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, texts) scaled cosines."""
        return self.model(input_ids=self.ids, pixel_values=images).logits_per_image


class Waveform(nn.Module):
    """A model of (N, L) samples that takes (N, 1, L)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, signals: Tensor) -> Any:
        """Return what the model returns."""
        return self.model(signals.squeeze(1))


def texts(width: int) -> Any:
    """Return the target of three texts, whose embeddings are random."""
    generator = torch.Generator("cpu").manual_seed(2)
    return camlens.targets.text(torch.randn(3, width, generator=generator, device="cpu"))


def best_of_class(output: Any) -> Tensor:
    """Return the highest score of class 1 among a detector's tokens."""
    return output.logits[..., 1].amax(dim=1)


def hugging_face(model: str, config: str, options: dict[str, Any]) -> nn.Module:
    """Return a model of transformers."""
    import transformers

    labels = {i: f"class {i}" for i in range(9)}
    made = getattr(transformers, config)(**{"id2label": labels, **options})
    return getattr(transformers, model)(made)


def clip() -> nn.Module:
    """Return a CLIP model of transformers with three texts."""
    options = {
        "vision_config": _VIT | {"projection_dim": 24},
        "text_config": _TEXT,
        "projection_dim": 24,
    }
    return TextTower(hugging_face("CLIPModel", "CLIPConfig", options))


def siglip_classifier() -> nn.Module:
    """Return a classifier on SigLIP's image tower, of transformers."""
    return hugging_face("SiglipForImageClassification", "SiglipConfig", {"vision_config": _VIT})


def sound() -> nn.Module:
    """Return a Wav2Vec2 classifier of transformers."""
    name = "Wav2Vec2ForSequenceClassification"
    return Waveform(hugging_face(name, "Wav2Vec2Config", _SOUND))


def open_clip_tower(name: str) -> nn.Module:
    """Return the image tower of a CLIP model of open_clip."""
    import open_clip

    return open_clip.create_model(name, pretrained=None, load_weights=False).visual


def rows() -> Iterator[Architecture]:
    """Yield the networks."""
    made = functools.partial(functools.partial, hugging_face)
    for kind, size, options, layer, cells, grid in CLASSIFIERS:
        name = f"{kind}ForImageClassification"
        build = made(name, f"{kind}Config", options)
        # With transformers' small initial weights, nothing of the image is left behind MobileViT.
        yield Architecture(
            "transformers",
            name,
            pair(size),
            layer,
            cells,
            grid,
            build,
            settled=kind == "MobileViT",
        )

    def row(name: str, size: Any, *known: Any, **options: Any) -> Architecture:
        return Architecture("transformers", name, pair(size), *known, **options)

    name = "SegformerForSemanticSegmentation"
    yield row(
        name,
        (96, 128),
        "segformer.stages.3",
        FIRST,
        (3, 4),
        made(name, "SegformerConfig", _STAGES | {"decoder_hidden_size": 32}),
        targets=BothSigns(camlens.targets.segmentation(1)),
        refused=BESIDE,
    )
    layer = "vision_model.encoder.layers.2"
    name, projected = "CLIPVisionModelWithProjection", _VIT | {"projection_dim": 24}
    build = made(name, "CLIPVisionConfig", projected)
    yield row(name, 96, layer, tokens(1), (6, 6), build, targets=texts(24))
    yield row("CLIPModel", 96, f"model.{layer}", tokens(1), (6, 6), clip, targets="all")
    name = "SiglipVisionModel"
    build = made(name, "SiglipVisionConfig", _VIT)
    yield row(name, 96, "post_layernorm", LAST, (6, 6), build, targets=texts(48))
    layer = "vision_model.post_layernorm"
    yield row("SiglipForImageClassification", 96, layer, LAST, (6, 6), siglip_classifier)
    name = "YolosForObjectDetection"
    build = made(name, "YolosConfig", _YOLOS)
    layer, cells = "vit.encoder.layer.2", tokens(1, 7)
    yield row(name, (96, 128), layer, cells, (6, 8), build, targets=BothSigns(best_of_class))
    name, layer = "Wav2Vec2ForSequenceClassification", "model.projector"
    yield row(name, (4000,), layer, LAST, (48,), sound, targets=[[0, 1]], channels=1)
    for name, size, width, layer, cells, grid in (
        ("ViT-S-32-alt", 224, 256, "transformer.resblocks.10", tokens(1), (7, 7)),
        ("RN50", 224, 1024, "layer4", FIRST, (7, 7)),
        ("convnext_base", 128, 512, "trunk.stages", FIRST, (4, 4)),
    ):
        build = functools.partial(open_clip_tower, name)
        yield Architecture(
            "open_clip", name, pair(size), layer, cells, grid, build, targets=texts(width)
        )

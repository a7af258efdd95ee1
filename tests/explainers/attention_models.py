"""Small vision transformers of other libraries, with random weights and heads that are not zero."""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn

CLASSES = 5
_SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
_HF = {**_SIZES, "intermediate_size": 64, "image_size": 64, "patch_size": 16}


class _WithoutText(nn.Module):
    """A CLIP of transformers whose texts are encoded in each call, as its users call it."""

    def __init__(self, clip: nn.Module, tokens: Tensor) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("tokens", tokens)

    def forward(self, images: Tensor) -> Tensor:
        return self.clip(pixel_values=images, input_ids=self.tokens).logits_per_image


def _timm(name: str, size: int | tuple[int, int] = 64, **options: object) -> nn.Module:
    given = {"img_size": size, "num_classes": CLASSES, "depth": 3, "embed_dim": 48, "num_heads": 3}
    return timm.create_model(name, **{**given, **options})


def _hf(name: str, **options: object) -> nn.Module:
    import transformers  # slow to import

    family = name.removesuffix("ForImageClassification").removesuffix("Model")
    config = getattr(transformers, f"{family.removesuffix('WithProjection')}Config")
    return getattr(transformers, name)(config(**{**_HF, "num_labels": CLASSES, **options}))


def _clip() -> nn.Module:
    import transformers

    text = {**_SIZES, "intermediate_size": 64, "vocab_size": 99}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    clip = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=_HF))
    return _WithoutText(clip, torch.randint(3, 99, (2, 17)))  # as many tokens as the image has


def _clip_vision() -> nn.Module:
    import transformers

    return transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**_HF, projection_dim=CLASSES)
    )


def _siglip_vision() -> nn.Module:
    import transformers

    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**_HF))


def _open_clip() -> nn.Module:
    from open_clip import model

    vision = model.CLIPVisionCfg(layers=3, width=48, head_width=16, patch_size=16, image_size=64)
    text = model.CLIPTextCfg(context_length=7, vocab_size=99, width=32, heads=4, layers=2)
    return model.CLIP(CLASSES, vision, text).visual


def _torchvision() -> nn.Module:
    import torchvision

    return torchvision.models.VisionTransformer(64, 16, 3, 4, 32, 64, num_classes=CLASSES)


class SequenceFirst(nn.Module):
    """torch's own encoder, whose tokens come before the images; the mean token is read."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 16, 16)
        self.places = nn.Parameter(torch.randn(16, 1, 32))
        block = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0)
        self.encoder = nn.TransformerEncoder(block, 3, enable_nested_tensor=False)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).permute(2, 0, 1) + self.places
        return self.head(self.encoder(tokens).mean(dim=0))


#: By name: the model, the images' size, how many prefix tokens it has, and the grid.
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], int, tuple[int, int]]] = {
    "timm vit": (lambda: _timm("vit_tiny_patch16_224"), (64, 64), 1, (4, 4)),
    "timm vit, mean": (
        lambda: _timm("vit_tiny_patch16_224", global_pool="avg"),
        *((64, 64), 1, (4, 4)),
    ),
    "timm vit, not square": (
        lambda: _timm("vit_tiny_patch16_224", dynamic_img_size=True),
        (48, 80),
        1,
        (3, 5),
    ),
    "timm deit3": (lambda: _timm("deit3_small_patch16_224"), (64, 64), 1, (4, 4)),
    "timm deit distilled": (lambda: _timm("deit_tiny_distilled_patch16_224"), (64, 64), 2, (4, 4)),
    "timm registers": (
        lambda: _timm("vit_small_patch14_reg4_dinov2", (56, 70)),
        (56, 70),
        5,
        (4, 5),
    ),
    "timm eva02": (lambda: _timm("eva02_tiny_patch14_224", 56), (56, 56), 1, (4, 4)),
    "timm beit": (lambda: _timm("beit_base_patch16_224"), (64, 64), 1, (4, 4)),
    "timm siglip": (lambda: _timm("vit_base_patch16_siglip_224"), (64, 64), 0, (4, 4)),
    "transformers vit": (lambda: _hf("ViTForImageClassification"), (64, 64), 1, (4, 4)),
    "transformers vit, eager": (
        lambda: _hf("ViTForImageClassification", attn_implementation="eager"),
        (64, 64),
        1,
        (4, 4),
    ),
    "transformers deit": (lambda: _hf("DeiTForImageClassification"), (64, 64), 2, (4, 4)),
    "transformers dinov2": (lambda: _hf("Dinov2ForImageClassification"), (48, 80), 1, (3, 5)),
    "transformers dinov2 with registers": (
        lambda: _hf("Dinov2WithRegistersForImageClassification"),
        (64, 64),
        5,
        (4, 4),
    ),
    "transformers clip": (_clip, (64, 64), 1, (4, 4)),
    "transformers clip vision": (_clip_vision, (64, 64), 1, (4, 4)),
    "transformers siglip vision": (_siglip_vision, (64, 64), 0, (4, 4)),
    "open_clip": (_open_clip, (64, 64), 1, (4, 4)),
    "torchvision": (_torchvision, (64, 64), 1, (4, 4)),
    "tokens before images": (SequenceFirst, (64, 64), 0, (4, 4)),
}


def build(name: str, images: int = 2) -> tuple[nn.Module, Tensor]:
    """Return a model and its images."""
    make, size, _, _ = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().eval()
        for parameter in model.parameters():
            if not parameter.any() or (parameter.ndim > 1 and parameter.abs().mean() < 0.03):
                nn.init.normal_(parameter, std=0.2)
        return model, torch.randn(images, 3, *size)

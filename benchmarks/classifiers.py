"""Classifiers of torchvision and timm."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from architectures import BESIDE, FIRST, LAST, Architecture, pair, tokens
from torch import nn

#: Name, size of the images, options, default layer, where it holds its cells, grid.
TORCHVISION: list[Any] = [
    ("alexnet", 128, {}, "features.11", FIRST, (7, 7)),
    ("vgg19", 128, {}, "features.35", FIRST, (8, 8)),
    ("resnet18", 128, {}, "layer4", FIRST, (4, 4)),
    ("resnet18", (96, 160), {}, "layer4", FIRST, (3, 5)),
    ("resnext50_32x4d", 128, {}, "layer4", FIRST, (4, 4)),
    ("densenet121", 128, {}, "features", FIRST, (4, 4)),
    ("googlenet", 128, {"init_weights": False}, "inception5b", FIRST, (4, 4)),
    ("inception_v3", 192, {"init_weights": False}, "Mixed_7c", FIRST, (4, 4)),
    ("squeezenet1_1", 64, {}, "classifier.2", FIRST, (3, 3)),
    ("shufflenet_v2_x0_5", 128, {}, "conv5", FIRST, (4, 4)),
    ("mobilenet_v2", 128, {}, "features", FIRST, (4, 4)),
    ("mobilenet_v3_small", 224, {}, "features", FIRST, (7, 7)),
    ("mnasnet0_5", 128, {}, "layers", FIRST, (4, 4)),
    ("efficientnet_b0", 128, {"settled": True}, "features", FIRST, (4, 4)),
    ("efficientnet_v2_s", 128, {}, "features", FIRST, (4, 4)),
    ("regnet_y_400mf", 128, {}, "trunk_output", FIRST, (4, 4)),
    ("convnext_tiny", 128, {}, "features", FIRST, (4, 4)),
    ("swin_t", 128, {}, "permute", FIRST, (4, 4)),
    ("swin_t", (128, 96), {}, "permute", FIRST, (4, 3)),
    ("swin_v2_t", 128, {}, "permute", FIRST, (4, 4)),
    ("vit_b_32", 224, {}, "encoder.layers.encoder_layer_10", tokens(1), (7, 7)),
]
TIMM: list[Any] = [
    ("convnext_atto", 128, {}, "stages", FIRST, (4, 4)),
    ("convnextv2_atto", (96, 160), {}, "stages", FIRST, (3, 5)),
    ("resnetv2_50", 128, {}, "norm", FIRST, (4, 4)),
    ("nf_regnet_b0", 128, {}, "final_act", FIRST, (4, 4)),
    ("dm_nfnet_f0", 96, {}, "final_act", FIRST, (3, 3)),
    ("eva02_tiny_patch14_224", 112, {"img_size": 112}, "blocks.11", tokens(1), (8, 8)),
    ("beit_base_patch16_224", 96, {"img_size": 96}, "blocks.11", tokens(1), (6, 6)),
    ("vit_tiny_patch16_224", 96, {"img_size": 96}, "blocks.10", tokens(1), (6, 6)),
    (
        "vit_tiny_patch16_224",
        (96, 160),
        {"dynamic_img_size": True},
        "blocks.10",
        tokens(1),
        (6, 10),
    ),
    (
        "vit_tiny_patch16_224",
        (64, 128),
        {"img_size": (64, 128), "global_pool": "avg", "class_token": False},
        "blocks",
        LAST,
        (4, 8),
    ),
    (
        "vit_small_patch14_reg4_dinov2",
        112,
        {"img_size": 112, "num_classes": 9},
        "blocks.10",
        tokens(5),
        (8, 8),
    ),
    ("vit_small_patch16_dinov3", (96, 128), {"num_classes": 9}, "norm", tokens(5), (6, 8)),
    (
        "vit_base_patch16_siglip_224",
        96,
        {"img_size": 96, "num_classes": 9},
        "attn_pool.kv",
        LAST,
        (6, 6),
    ),
    ("deit_tiny_patch16_224", 96, {"img_size": 96}, "blocks.10", tokens(1), (6, 6)),
    ("deit_tiny_distilled_patch16_224", 96, {"img_size": 96}, "blocks.10", tokens(2), (6, 6)),
    ("deit3_small_patch16_224", 96, {"img_size": 96}, "blocks.10", tokens(1), (6, 6)),
    ("cait_xxs24_224", 224, {}, "blocks", LAST, (14, 14)),
    ("xcit_nano_12_p16_224", 224, {}, "cls_attn_blocks.0", tokens(1), (14, 14)),
    ("swin_tiny_patch4_window7_224", 224, {}, "norm", LAST, (7, 7)),
    ("swinv2_tiny_window8_256", 128, {"img_size": 128, "window_size": 4}, "norm", LAST, (4, 4)),
    ("maxvit_rmlp_pico_rw_256", 256, {}, "norm", FIRST, (8, 8)),
    ("coatnet_nano_rw_224", 128, {"img_size": 128}, "norm", FIRST, (4, 4)),
    ("maxxvitv2_nano_rw_256", 256, {}, "norm", FIRST, (8, 8)),
    ("tiny_vit_5m_224", 224, {}, "stages", FIRST, (7, 7)),
    ("volo_d1_224", 224, {}, "post_network.0", tokens(1), (14, 14)),
    ("coat_lite_tiny", 224, {}, "cpe4", tokens(1), (7, 7)),
    ("hiera_tiny_224", 224, {}, "blocks.11", LAST, (7, 7)),
    ("nest_tiny", 224, {}, "norm", LAST, (14, 14)),
    ("mixer_s32_224", 224, {}, "norm", LAST, (7, 7)),
    ("poolformer_s12", 128, {}, "stages", FIRST, (4, 4)),
    ("pvt_v2_b0", 128, {}, "stages", FIRST, (4, 4)),
    ("mobilevit_xxs", 128, {}, "final_conv", FIRST, (4, 4)),
    ("mobilenetv4_conv_small", (96, 160), {}, "blocks", FIRST, (3, 5)),
    ("efficientformer_l1", 224, {}, "norm", LAST, (7, 7)),
    ("levit_128s", 224, {"settled": True}, "stages.1", LAST, (7, 7)),
    ("repvit_m0_9", 128, {}, "stages", FIRST, (4, 4)),
    ("edgenext_xx_small", 128, {}, "stages", FIRST, (4, 4)),
    ("fastvit_t8", 128, {}, "final_conv", FIRST, (4, 4)),
    ("hrnet_w18_small", 128, {}, "final_layer", FIRST, (4, 4)),
    ("davit_tiny", 224, {}, "stages", FIRST, (7, 7)),
    ("mvitv2_tiny", 224, {}, "norm", LAST, (7, 7)),
    ("gcvit_xxtiny", 224, {}, "stages", FIRST, (7, 7)),
    ("focalnet_tiny_srf", 128, {}, "norm", FIRST, (4, 4)),
    ("twins_svt_small", 224, {}, "norm", LAST, (7, 7)),
    ("crossvit_9_240", 240, {"refused": BESIDE}, "blocks.1.blocks.1", tokens(1), (14, 14)),
]


def from_torchvision(name: str, options: dict[str, Any]) -> nn.Module:
    """Return a network of torchvision."""
    import torchvision

    return torchvision.models.get_model(name, weights=None, **options)


def small_maxvit() -> nn.Module:
    """Return a MaxViT of torchvision that is narrow and shallow."""
    from torchvision.models import MaxVit

    return MaxVit(
        input_size=(128, 128),
        stem_channels=16,
        partition_size=4,
        block_channels=[16, 32, 64, 96],
        block_layers=[1, 1, 1, 1],
        head_dim=16,
        stochastic_depth_prob=0.0,
        num_classes=9,
    )


def from_timm(name: str, options: dict[str, Any]) -> nn.Module:
    """Return a network of timm."""
    import timm

    return timm.create_model(name, pretrained=False, **options)


def rows() -> Iterator[Architecture]:
    """Yield the networks."""
    for library, table, make in (
        ("torchvision", TORCHVISION, from_torchvision),
        ("timm", TIMM, from_timm),
    ):
        for name, size, options, layer, cells, grid in table:
            rest = dict(options)
            known = {key: rest.pop(key) for key in ("settled", "refused") if key in rest}
            build = functools.partial(make, name, rest)
            yield Architecture(library, name, pair(size), layer, cells, grid, build, **known)
    yield Architecture(
        "torchvision", "MaxVit (small)", (128, 128), "blocks.3", FIRST, (4, 4), small_maxvit
    )

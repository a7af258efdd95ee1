"""Networks that people use, with the layers that are their defaults."""

import torchvision
from torch import nn

#: Network, size of the images, options, layer, grid.
TORCHVISION = [
    ("resnet18", 128, {}, "layer4", (4, 4)),
    ("vgg19", 128, {}, "features.35", (8, 8)),
    ("densenet121", 128, {}, "features", (4, 4)),
    ("googlenet", 128, {"init_weights": False}, "inception5b", (4, 4)),
    ("inception_v3", 192, {"init_weights": False}, "Mixed_7c", (4, 4)),
    ("squeezenet1_1", 64, {}, "classifier.2", (3, 3)),
    ("mobilenet_v3_small", 224, {}, "features", (7, 7)),
    ("convnext_tiny", 128, {}, "features", (4, 4)),
    ("swin_t", 128, {}, "permute", (4, 4)),
    ("vit_b_32", 224, {}, "encoder.layers.encoder_layer_10", (7, 7)),
]
TIMM = [
    ("convnext_atto", 128, {}, "stages", (4, 4)),
    ("resnetv2_50", 128, {}, "norm", (4, 4)),
    ("eva02_tiny_patch14_224", 112, {"img_size": 112}, "blocks.11", (8, 8)),
    ("beit_base_patch16_224", 96, {"img_size": 96}, "blocks.11", (6, 6)),
    ("vit_tiny_patch16_224", 96, {"img_size": 96}, "blocks.10", (6, 6)),
    (
        "vit_small_patch14_reg4_dinov2",
        112,
        {"img_size": 112, "num_classes": 9},
        "blocks.10",
        (8, 8),
    ),
    ("deit_tiny_patch16_224", 96, {"img_size": 96}, "blocks.10", (6, 6)),
    ("deit_tiny_distilled_patch16_224", 96, {"img_size": 96}, "blocks.10", (6, 6)),
    ("swin_tiny_patch4_window7_224", 224, {}, "norm", (7, 7)),
    ("maxvit_rmlp_pico_rw_256", 256, {}, "norm", (8, 8)),
    ("tiny_vit_5m_224", 224, {}, "stages", (7, 7)),
    ("volo_d1_224", 224, {}, "post_network.0", (14, 14)),
    ("coat_lite_tiny", 224, {}, "cpe4", (7, 7)),
    ("hiera_tiny_224", 224, {}, "blocks.11", (7, 7)),
    ("nest_tiny", 224, {}, "norm", (14, 14)),
    ("cait_xxs24_224", 224, {}, "blocks", (14, 14)),
    ("mixer_s32_224", 224, {}, "norm", (7, 7)),
    ("poolformer_s12", 128, {}, "stages", (4, 4)),
    ("pvt_v2_b0", 128, {}, "stages", (4, 4)),
    ("mobilevit_xxs", 128, {}, "final_conv", (4, 4)),
    ("hrnet_w18_small", 128, {}, "final_layer", (4, 4)),
    ("davit_tiny", 224, {}, "stages", (7, 7)),
    ("mvitv2_tiny", 224, {}, "norm", (7, 7)),
    ("gcvit_xxtiny", 224, {}, "stages", (7, 7)),
]


def from_torchvision(name, options):
    """Return a network of torchvision with random weights."""
    return with_random_head(torchvision.models.get_model(name, weights=None, **options).eval())


def from_timm(name, options):
    """Return a network of timm with random weights."""
    import timm

    return with_random_head(timm.create_model(name, pretrained=False, **options).eval())


def with_random_head(model):
    """Draw the parameters that are zero, such as an untrained head, of which no score depends."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model

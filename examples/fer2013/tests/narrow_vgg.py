"""VGG19 with few channels: the same layer names, and a hundredth of the weights."""

from torch import nn
from torchvision.models.vgg import cfgs, make_layers

# The head that EmotionVGG adds takes 512 channels, so the last convolution keeps them.
_WIDTHS = [width if width == "M" else width // 8 for width in cfgs["E"][:-2]] + [512, "M"]


class NarrowVGG(nn.Sequential):
    """A replacement for the result of ``torchvision.models.get_model``."""

    def __init__(self, architecture, *, weights=None, dropout=0.5, num_classes=1000):
        assert weights is None
        super().__init__()
        self.features = make_layers(_WIDTHS, batch_norm=architecture == "vgg19_bn")
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            *(nn.Linear(512 * 7 * 7, 8), nn.ReLU(), nn.Dropout(dropout)),
            *(nn.Linear(8, 4096), nn.ReLU(), nn.Dropout(dropout)),
            nn.Linear(4096, num_classes),
        )
        for module in self.features:  # as torchvision's
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

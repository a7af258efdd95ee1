"""The fields of a training configuration, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of the training images. The values 0, (1, 1) and None disable a change.

    Attributes:
        mirror: probability of a horizontal flip.
        rotation: maximum rotation in degrees, in either direction.
        shift: maximum shift in both directions, as a fraction of the side.
        scale: range of the scale factor.
        shear: maximum shear in degrees.
        resized_crop: range of the area that is cropped and resized to the whole side.
        crop: side of a random crop in pixels, which is not resized.
        jitter: maximum change of brightness and contrast.
        elastic: torchvision's alpha of the elastic distortion, with a Gaussian blur of standard
            deviation 4 pixels; 9 moves pixels by 0.2 pixels (root mean square).
        perspective: distortion of a random perspective, applied with probability 0.5.
        erasing: probability of erasing a random rectangle.
        mixup: beta distribution's parameter for blending pairs of images and labels.
    """

    mirror: float = 0.5
    rotation: float = 10.0
    shift: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    resized_crop: tuple[float, float] = (1.0, 1.0)
    crop: int | None = None
    jitter: float = 0.0
    elastic: float = 0.0
    perspective: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0


@dataclasses.dataclass(frozen=True)
class Config:
    """A training configuration.

    Attributes:
        network: "base", or torchvision's "vgg19" or "vgg19_bn" with a new head.
        weights: initial weights: "none" (random), "imagenet" (torchvision's), "pretrain" (the
            output of that command), another configuration's name, or a file.
        frozen: number of VGG19's first ``features`` modules that are not trained.
        head: "average" is global average pooling, 512 units, ReLU, dropout and 7 outputs;
            "torchvision" is the original classifier.
        side: side in pixels to which VGG19 resizes the images; 96 and 224 give finer maps.
        split: "standard" or "deck"; see :func:`fer2013.data.splits.divide`.
        rate: learning rate; of "one-cycle" and "cosine" the maximum.
        block_rate: factor of the learning rate for each block further from the head, if the weights
            are pretrained on other data.
        schedule: "plateau" lowers the rate when the validation loss stops improving; "cosine" warms
            up and decays; "one-cycle" also moves the momentum the other way.
        warm_up: fraction of the steps in which the rate rises.
        class_weights: weight the loss of class c by N / (7 n_c).
        distillation: weight of the base network's probabilities in the training labels (Hinton et
            al., 2015, at temperature 1). It was trained on Training and selected on PublicTest.
        average: decay per step of the exponential moving average of the weights; 0 disables it.
        small_epochs: number of initial epochs with images resized to ``small_side``, which is
            faster.
        averaging: views over which logits are averaged: "single", "mirror" or "ten-crop" (crops of
            ``augmentation.crop`` pixels).
        monitor: metric that selects the best epoch and stops the run early.
        patience: number of epochs without improvement before the run stops.
    """

    name: str
    network: Literal["base", "vgg19", "vgg19_bn"] = "vgg19"
    weights: str = "imagenet"
    frozen: int = 0
    # At 48 pixels torchvision's 7x7 pool copies a 1x1 map 49 times into a layer of 103 M weights.
    head: Literal["average", "torchvision"] = "average"
    dropout: float = 0.5
    side: int = 48
    split: Literal["standard", "deck"] = "deck"
    epochs: int = 30
    batch_size: int = 64
    optimizer: Literal["adam", "sgd"] = "adam"
    rate: float = 1e-4
    block_rate: float = 1.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Literal["none", "plateau", "one-cycle", "cosine"] = "none"
    warm_up: float = 0.3
    class_weights: bool = False
    label_smoothing: float = 0.0
    distillation: float = 0.0
    augmentation: Augmentation = Augmentation()
    average: float = 0.0
    small_epochs: int = 0
    small_side: int = 36
    averaging: Literal["single", "mirror", "ten-crop"] = "single"
    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"
    patience: int = 8


def from_dict(values: dict[str, Any]) -> Config:
    """Create a configuration from the output of :func:`dataclasses.asdict`.

    Raises:
        TypeError: a field is unknown.
    """
    changed: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values["augmentation"].items()
    }
    return Config(**{**values, "augmentation": Augmentation(**changed)})

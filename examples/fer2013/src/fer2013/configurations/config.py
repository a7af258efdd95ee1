"""What a training run needs to know: one frozen record, read by its fields."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How a training face is changed each time it is seen; 0, or (1, 1), is not at all.

    Attributes:
        mirror: probability of the mirror image.
        rotation: most degrees either way.
        shift: most of the side, across and down.
        scale: factors of the size.
        shear: most degrees.
        resized_crop: which part of the area is cut out and enlarged to the whole side again.
        crop: side of a random cut-out in pixels, which is not enlarged; None cuts nothing.
        jitter: most change of brightness and of contrast. Grey pictures have no hue.
        elastic: torchvision's alpha of the elastic distortion, of noise that is blurred with a
            standard deviation of 4 pixels. 9 moves a pixel by 0.2 pixels, in the root mean square.
        perspective: distortion of a random change of perspective, on every second face.
        erasing: probability that a random rectangle is erased, so that no place is relied on.
        mixup: beta parameter of the blending of pairs of faces and labels.
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
    """What a training run needs to know.

    Attributes:
        network: "base", or torchvision's "vgg19" or "vgg19_bn" with the head that ``head`` names.
        weights: where to start: "none" is random weights, "imagenet" torchvision's, "pretrain" what
            that command writes, any other name that configuration's run.
        frozen: how many of VGG19's ``features``, from the first, are not trained.
        head: "average" is global average, 512, ReLU, dropout, 7; "torchvision" the original one.
        side: to this the network resizes the 48x48 faces; 96 and 224 are for a finer grid.
        split: "standard" or "deck"; see :mod:`fer2013.data.splits`.
        rate: learning rate; of the two one-cycle schedules the highest.
        block_rate: factor of the rate for each block further from the head, where the weights
            come from elsewhere: what is learnt already is changed less.
        schedule: "plateau" lowers the rate when the validation loss stops improving; "cosine"
            warms up and falls along a cosine; "one-cycle" moves the momentum the other way too.
        warm_up: part of all steps in which the rate climbs.
        class_weights: weigh the loss of class c by N / (7 n_c).
        distillation: part of a training label that is the base network's probabilities instead
            (Hinton et al., 2015, at temperature 1); it comes with the package, trained on Training
            and selected on PublicTest.
        average: decay a step of the weights' exponential moving average; 0 keeps the weights.
        small_epochs: in how many first epochs the faces are shrunk to ``small_side``, which costs
            less.
        averaging: over which views of a face the logits are averaged: "single", "mirror" or
            "ten-crop" (of ``augmentation.crop`` pixels).
        monitor: what selects the best epoch and stops the run.
        patience: epochs without a better one before the run stops.
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
    """Return the configuration that :func:`dataclasses.asdict` took apart.

    Raises:
        TypeError: it has fields that configurations do not have.
    """
    changed: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values["augmentation"].items()
    }
    return Config(**{**values, "augmentation": Augmentation(**changed)})

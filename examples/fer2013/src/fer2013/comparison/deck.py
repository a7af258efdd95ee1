"""The slide deck's results, as published, and results of other publications.

Source: "Interpretable Emotion Recognition: Visualizing Neural Attention in Facial Emotion
Classification with Grad-CAM", Team M: Alex de la Haya, Gori Ribot and Marc Guiu.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ..evaluation.accuracy import wilson

SOURCE = (
    "the slide deck 'Interpretable Emotion Recognition: Visualizing Neural Attention in Facial "
    "Emotion Classification with Grad-CAM' (A. de la Haya, G. Ribot, M. Guiu)"
)

#: The deck's test set: PublicTest and PrivateTest together.
TEST = "deck-test"
TEST_FACES = 7178


@dataclasses.dataclass(frozen=True)
class Published:
    """A configuration's accuracies in percent.

    Attributes:
        training: the deck's text, without "about".
        validation: the deck's text, without "about".
        test: over :data:`TEST_FACES` images.
    """

    training: str
    validation: str
    test: float

    @property
    def correct(self) -> int:
        """The number of correct predictions, a whole number that the accuracy rounds."""
        return round(self.test / 100 * TEST_FACES)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson interval of the test accuracy, in [0, 1]."""
        return wilson(self.correct, TEST_FACES)


#: The deck gives no accuracy of its base network; VGG19 "significantly outperforms" it.
CONFIGURATIONS = {
    "config1": Published("52", "45", 44.22),
    "config2": Published(">90", "57", 51.31),
    "config3": Published("77", "74", 57.91),
    "config4": Published(">90", "83", 59.11),
}

_REPORT = """
angry        0.52 0.48 0.50  958
disgust      0.67 0.63 0.65  111
fear         0.46 0.49 0.47 1024
happy        0.79 0.74 0.77 1774
neutral      0.52 0.56 0.54 1233
sad          0.45 0.48 0.46 1247
surprise     0.77 0.73 0.75  831
macro avg    0.60 0.59 0.59 7178
weighted avg 0.60 0.59 0.59 7178
"""


def _parsed(text: str) -> dict[str, Any]:
    rows: dict[str, Any] = {"accuracy": 0.59}
    for line in text.strip().splitlines():
        name, *values = line.rsplit(maxsplit=4)
        keys = ("precision", "recall", "f1-score", "support")
        rows[name] = dict(zip(keys, map(float, values), strict=True))
    return rows


#: Configuration 4's classification report on the deck's test set, in scikit-learn's layout.
REPORT = _parsed(_REPORT)

_ISSUE = "quoted in the project's issue, without a source"
#: Published accuracies by other protocols: network, percent, test set, source.
OTHERS = (
    ("VGG19, ImageNet weights, 224 px", 70.8, "on PrivateTest", _ISSUE),
    ("VGG", 72.7, "on PrivateTest", "Pramerdorfer 2016, arXiv:1612.02903"),
    (
        "VGG19-BN from random weights",
        73.11,
        "on PrivateTest",
        "github.com/WuJie1010/Facial-Expression-Recognition.Pytorch",
    ),
    ("people", 65.0, "test set not stated", "quoted in the deck"),
    (
        "deep CNNs",
        75.0,
        "test set not stated",
        "Pramerdorfer 2016, arXiv:1612.02903, quoted in the deck",
    ),
    ("VGG", 73.0, "test set not stated", "Khairuddin 2021, arXiv:2105.03588, quoted in the deck"),
    (
        "CNN-BiLSTM",
        79.0,
        "test set not stated",
        "Lamichhane 2024, Int. J. Eng. Tech., quoted in the deck",
    ),
)

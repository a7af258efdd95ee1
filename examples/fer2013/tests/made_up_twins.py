"""Smooth random images that differ from each other, with duplicates among them."""

import cv2
import numpy as np

from fer2013.data.faces import Faces


def pictures(count, seed=0):
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (count, 10, 10)).astype(np.float32)
    large = [cv2.resize(c, (60, 60), interpolation=cv2.INTER_CUBIC)[6:54, 6:54] for c in coarse]
    return np.clip(large, 0, 255).astype(np.uint8)


def as_faces(images, labels, usages):
    names = np.array([str(i) for i in range(len(images))])
    return Faces(np.asarray(images), np.array(labels, np.int64), np.array(usages, np.int64), names)


def twinned():
    """Return 40 images with exact, near and mirrored duplicates, and blanks.

    0 = 30 (exact, Training and PublicTest), 1 = 2 = 31 (exact; near, brighter and shifted),
    3 = 4 (mirrored), 5 = 6 (exact, Training, conflicting labels), 38 and 39 black.
    """
    images = pictures(40)
    images[30] = images[0]
    images[2] = images[1]
    moved = cv2.warpAffine(
        images[1],
        np.float32([[1.02, 0, -2], [0, 1.02, 1]]),
        (48, 48),
        borderMode=cv2.BORDER_REFLECT,
    )
    images[31] = np.clip(0.7 * moved.astype(float) + 30, 0, 255).astype(np.uint8)
    images[4] = images[3][:, ::-1]
    images[6] = images[5]
    images[38:] = 0
    labels = np.arange(40) % 7
    for one, other in ((0, 30), (1, 2), (1, 31), (3, 4)):
        labels[other] = labels[one]
    return as_faces(images, labels, np.where(np.arange(40) < 28, 0, 1))

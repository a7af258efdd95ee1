"""Synthetic faces, as the project contains no real ones, and FER2013's file formats.

Each class has a bright band at its own height.
"""

import cv2
import numpy as np

from fer2013.data.faces import CLASSES, USAGES, Faces


def made_up_faces(training=8, public=3, private=0, *, seed=0):
    """Return the given number of images of each class in each official split."""
    generator = np.random.default_rng(seed)
    usages = np.repeat(np.arange(3), (7 * training, 7 * public, 7 * private))
    labels = np.concatenate([np.arange(7).repeat(n) for n in (training, public, private)])
    images = generator.integers(0, 60, (len(labels), 48, 48), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[6 * label : 6 * label + 6] += 150
    return Faces(images, labels, usages, np.arange(len(labels)).astype(str))


def write_csv(faces, path, header="emotion,pixels,Usage"):
    lines = [header]
    for image, label, usage in zip(faces.images, faces.labels, faces.usages, strict=True):
        pixels = " ".join(map(str, image.ravel()))
        values = {"emotion": str(label), "pixels": pixels, "Usage": USAGES[usage]}
        lines.append(",".join(values[column.strip()] for column in header.split(",")))
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def write_folders(faces, root):
    for i, (image, label, usage) in enumerate(
        zip(faces.images, faces.labels, faces.usages, strict=True)
    ):
        folder = root / ("train" if usage == 0 else "test") / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{USAGES[usage]}_{i:05d}.png"), image)

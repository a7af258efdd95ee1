"""Made-up faces in the formats of FER2013: no real image is needed, and none is in the project."""

import cv2
import numpy as np

from fer2013.data.faces import CLASSES, USAGES

# Class 3 of the CSV files is happy; among the folders' sorted names number 3 is happy too, but
# 4 is neutral there and sad in the CSV files.
ROWS = [
    (label, usage)
    for usage in range(3)
    for label in range(7)
    for _ in range(4 if usage == 0 else 2)
]


def images():
    generator = np.random.default_rng(0)
    drawn = []
    for label, _ in ROWS:
        image = generator.integers(0, 40, (48, 48), dtype=np.uint8)
        image[6 * label : 6 * label + 6] = 220  # every class has its own bright band
        drawn.append(image)
    return np.stack(drawn)


def write_csv(path, header="emotion,pixels,Usage"):
    lines = [header]
    for image, (label, usage) in zip(images(), ROWS, strict=True):
        pixels = " ".join(map(str, image.ravel()))
        values = {"emotion": str(label), "pixels": pixels, "Usage": USAGES[usage]}
        lines.append(",".join(values[column.strip()] for column in header.split(",")))
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def write_folders(root):
    for i, (image, (label, usage)) in enumerate(zip(images(), ROWS, strict=True)):
        folder = root / ("train" if usage == 0 else "test") / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{USAGES[usage]}_{i:05d}.png"), image)

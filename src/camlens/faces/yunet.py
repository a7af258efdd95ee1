"""Face detector YuNet of OpenCV, which returns five points for each face."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any, final

import numpy as np

from .detector import Detector, Find, Picture, Rows, import_library, unreadable

_FACE = 400  # pixels; YuNet finds only parts of larger faces
_PHOTO = 1600  # pixels; larger photographs are not searched at full size, which is slow
_OPENING = threading.Lock()


@final
class YuNet(Detector):
    """OpenCV's face detector YuNet, which returns five points for each face.

    The points are the person's right eye, left eye, tip of the nose, right and left corner of the
    mouth; the person's right is on the picture's left. YuNet finds faces of about 12 to 400 pixels,
    so camlens searches a photograph at its full size (if at most 1600 pixels), at a half, a quarter
    and so on until its longer side is at most 400 pixels. It also searches the mirror image,
    because YuNet places the points of large faces slightly too far left. Detections that agree are
    averaged, weighted by confidence.

    Args:
        path: the model file; by default the published one, see :func:`.model_files.find`.
        threshold: minimum confidence of a face, in (0, 1).
        enlarge: integer factor by which each photograph is enlarged first; by default the smallest
            that makes its shorter side at least 240 pixels.
        border: width of a border of repeated edge pixels to add first, as a fraction of height and
            width. Without it, the points of a face that the edge cuts are pushed inside. If
            nothing is found with the border, the search is repeated without it.

    Raises:
        ImportError: OpenCV is not installed, or pooch if the model must be downloaded.
        OSError: there is no model file, see :func:`.model_files.find`.
        ValueError: an option is out of range.

    Source:
        Wu, Peng, Yu: YuNet: a tiny millisecond-level face detector. Machine Intelligence
        Research 20 (2023).
    """

    _points = 5

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        threshold: float = 0.6,
        enlarge: int | None = None,
        border: float = 0.25,
    ) -> None:
        self._cv2 = import_library("cv2", "YuNet needs OpenCV", "regions")
        super().__init__(path, model="yunet", threshold=threshold, enlarge=enlarge, border=border)

    @contextlib.contextmanager
    def _opened(self, faces: int) -> Iterator[Find]:
        network = self._network()

        def find(picture: Picture) -> Rows:
            sizes = _sizes(picture.shape[1], picture.shape[0])
            rows = [self._at(size, picture, network) for size in sizes]
            mirrored = [self._at(size, picture[:, ::-1], network) for size in sizes]
            rows += [_mirrored(found, picture.shape[1]) for found in mirrored]
            return _merged(np.concatenate(rows))

        yield find

    def _network(self) -> Any:
        log = self._cv2.utils.logging
        with _OPENING:  # the log level is global to the process
            level = log.setLogLevel(log.LOG_LEVEL_ERROR)  # OpenCV 5 warns about its own default
            try:
                return self._cv2.FaceDetectorYN.create(
                    str(self._path), "", (320, 320), self._threshold
                )
            except self._cv2.error as error:
                raise unreadable(self._path, f"OpenCV {self._cv2.__version__}") from error
            finally:
                log.setLogLevel(level)

    def _at(self, size: tuple[int, int], picture: Picture, network: Any) -> Rows:
        """Return the detections at a size (width, height), in the picture's pixels."""
        small = self._cv2.resize(picture, size, interpolation=self._cv2.INTER_AREA)
        network.setInputSize(size)
        _, rows = network.detect(np.ascontiguousarray(small[..., ::-1]))  # OpenCV expects BGR
        if rows is None:
            return np.empty((0, 15), np.float32)
        if max(size) > _FACE:
            rows = rows[rows[:, 2:4].max(axis=1) <= _FACE]  # found at the next smaller size
        scale = np.array(picture.shape[1::-1], np.float32) / np.array(size, np.float32)
        positions = (rows[:, :14].reshape(-1, 7, 2) * scale).reshape(-1, 14)
        return np.concatenate([positions[:, :4], rows[:, 14:], positions[:, 4:]], axis=1)


def _sizes(width: int, height: int) -> list[tuple[int, int]]:
    """Return the sizes at which to search a picture: its own, a half of it, a quarter and so on."""
    sizes = [(width, height)]
    while max(sizes[-1]) > _FACE:
        sizes.append((max(sizes[-1][0] // 2, 1), max(sizes[-1][1] // 2, 1)))
    return [size for size in sizes if max(size) <= _PHOTO]


def _mirrored(rows: Rows, width: int) -> Rows:
    """Return YuNet's rows of a mirrored picture as rows of the picture itself."""
    boxes, points = rows[:, :4].copy(), rows[:, 5:].reshape(-1, 5, 2)[:, [1, 0, 2, 4, 3]]
    boxes[:, 0] = width - boxes[:, 0] - boxes[:, 2]
    points[..., 0] = width - points[..., 0]
    return np.concatenate([boxes, rows[:, 4:5], points.reshape(-1, 10)], axis=1)


def _merged(rows: Rows) -> Rows:
    """Return one row per face: the mean of the agreeing detections, weighted by confidence.

    At too large a scale, YuNet detects parts of a face as faces. So a detection that shares more
    than half of the smaller box with a more confident one is dropped; if it also shares more than
    half of their union, it shows the same face and enters the mean.
    """
    merged = np.empty((0, rows.shape[1]), np.float32)
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    while len(rows):
        common, areas = _common(rows[0], rows), rows[:, 2:4].prod(axis=1)
        same = rows[common > 0.5 * (areas + areas[0] - common)]
        face = np.average(same, axis=0, weights=same[:, 4])
        face[4] = rows[0, 4]
        merged = np.append(merged, face[None].astype(np.float32), axis=0)
        rows = rows[common <= 0.5 * np.minimum(areas, areas[0])]
    return merged


def _common(row: Rows, rows: Rows) -> Rows:
    """Return the area that each row's box shares with a given row's."""
    start = np.maximum(row[:2], rows[:, :2])
    end = np.minimum(row[:2] + row[2:4], rows[:, :2] + rows[:, 2:4])
    area: Rows = (end - start).clip(0).prod(axis=1)
    return area

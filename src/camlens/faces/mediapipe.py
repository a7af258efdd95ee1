"""Face detector MediaPipe, which returns a mesh of 478 points for each face."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, final

import numpy as np
import numpy.typing as npt

from .detector import Detector, Find, Picture, Rows, import_library, unreadable

_MOST_FACES = 32  # enough to include the largest face


@final
class MediaPipe(Detector):
    """MediaPipe's Face Landmarker, which returns a mesh of 478 points for each face.

    The boxes enclose the points; there is no confidence. Faces smaller than about a tenth of the
    photograph's side are missed. MediaPipe writes a few lines to standard error in each call.

    Args:
        path: the model file; by default the published one, see :func:`.model_files.find`.
        threshold: minimum confidence of a face, and of its mesh, in (0, 1).
        enlarge: integer factor by which each photograph is enlarged first; by default the smallest
            that makes its shorter side at least 240 pixels.
        border: width of a border of repeated edge pixels to add first, as a fraction of height and
            width. If nothing is found with the border, the search is repeated without it.

    Raises:
        ImportError: MediaPipe is not installed, or pooch if the model must be downloaded.
        OSError: there is no model file, see :func:`.model_files.find`.
        ValueError: an option is out of range.

    Source:
        Kartynnik, Ablavatski, Grishchenko, Grundmann: Real-time facial surface geometry from
        monocular video on mobile GPUs. arXiv:1907.06724 (2019).
    """

    _points = 478

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        threshold: float = 0.5,
        enlarge: int | None = None,
        border: float = 0.25,
    ) -> None:
        # The library starts a profiling timer when it first runs (seen in 1.2.3), whose signal can
        # end the process ("Profiling timer expired"). This variable switches it off.
        os.environ.setdefault("CPUPROFILE_FREQUENCY", "0")
        self._mediapipe = import_library("mediapipe", "MediaPipe needs mediapipe", "faces")
        super().__init__(
            path, model="face_landmarker", threshold=threshold, enlarge=enlarge, border=border
        )

    @contextlib.contextmanager
    def _opened(self, faces: int) -> Iterator[Find]:
        with self._landmarker(faces) as landmarker:

            def find(picture: Picture) -> Rows:
                image = self._mediapipe.Image(
                    image_format=self._mediapipe.ImageFormat.SRGB, data=picture
                )
                meshes = landmarker.detect(image).face_landmarks
                points = np.array([[(p.x, p.y) for p in mesh] for mesh in meshes], np.float32)
                size = np.array(picture.shape[1::-1], np.float32)
                return _boxed(points.reshape(-1, self._points, 2) * size)

            yield find

    def _landmarker(self, faces: int) -> Any:
        tasks = self._mediapipe.tasks
        options = tasks.vision.FaceLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_path=str(self._path)),
            num_faces=max(faces, _MOST_FACES),
            min_face_detection_confidence=self._threshold,
            min_face_presence_confidence=self._threshold,
        )
        try:
            return tasks.vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise unreadable(self._path, "MediaPipe") from error


def _boxed(points: npt.NDArray[np.float32]) -> Rows:
    """Return rows of (F, P, 2) points, without a confidence."""
    flat = points.reshape(len(points), points.shape[1] * 2)
    start, end = points.min(axis=1), points.max(axis=1)
    unknown = np.full((len(points), 1), np.nan, np.float32)
    return np.concatenate([start, end - start, unknown, flat], axis=1)

"""Regions of faces, such as eyes and mouth, from a template, from landmarks or from a detector."""

from . import model_files
from .detector import Faces
from .landmarks import MESH, from_landmarks
from .mediapipe import MediaPipe
from .template import face_template, template_points
from .yunet import YuNet

__all__ = [
    "MESH",
    "Faces",
    "MediaPipe",
    "YuNet",
    "face_template",
    "from_landmarks",
    "model_files",
    "template_points",
]

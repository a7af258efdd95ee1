"""Photographs that FER2013 holds more than once: equal bytes, other crops, mirror images; blanks.

A perceptual hash proposes pairs, and the pixels decide. A 12x12 hash takes the cosine transform of
the 48x48 face itself, without resampling; of its 144 bits two unrelated faces differ in about 72.
Of the pairs that differ in at most 36, one face is shifted, scaled and sheared over the other
until they fit best, and their correlation, which brightness and contrast do not change, says
whether they are the same photograph.

How the thresholds were chosen: of the 8,300 pairs that the hash proposes in Training and
PublicTest, 2,453 correlate by more than 0.99, 80 by 0.95 to 0.96, and 1,600 by 0.8 to 0.9: two
humps, the same photograph and faces that look alike, with the valley at 0.95. The control are
pairs of a face and another one's mirror image, as many comparisons with hardly a true pair: there
only 15 of 4,079 are between 0.96 and 0.98. Of 78 pairs drawn from 0.97 to 0.99, just above the
threshold, all are the same photograph by eye. Below it and beyond 36 bits there are more: of 600
real faces that were cut again and brightened, 99% are found if the cut is a pixel narrower on each
side, 88% if it lacks two pixels at a corner, 22% if three. So counts of twins are lower bounds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import cv2
import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .faces import SIDE, USAGES, Faces

#: How a pair can be the same photograph: equal bytes, another crop or copy, the mirror image.
KINDS = ("exact", "near", "mirrored")

_HASH_SIDE = 12
_MOST_BITS = 36
_LEAST_CORRELATION = 0.97
_CHUNK = 512  # rows of the hashes' products at a time: 70 MB for all of FER2013

# A blank's grey levels hardly differ, or only from one end to the other. In Training and PublicTest
# the deviation of blanks is below 4 and that of dark faces above 9; the deviation of the Laplacian
# is below 2 for blanks and above 6 for blurred faces.
_LEAST_DEVIATION, _LEAST_DETAIL = 6.0, 4.0


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Which faces are the same photograph.

    Attributes:
        pairs: (P, 2) int64 indices of faces, the smaller one first. Faces of equal bytes are
            paired with the first of them only, and only that one with others.
        kinds: (P,) str, out of :data:`KINDS`.
        correlations: (P,) of the aligned pixels; 1 for equal bytes.
        groups: the sets of faces that pairs connect, each sorted, in the order of their first face.
    """

    pairs: np.ndarray
    kinds: np.ndarray
    correlations: np.ndarray
    groups: tuple[np.ndarray, ...]

    def only(self, *kinds: str) -> Duplicates:
        """Return the pairs of some kinds, and the groups that these connect.

        Raises:
            ValueError: there is no such kind.
        """
        if unknown := set(kinds) - set(KINDS):
            raise ValueError(f"expected kinds out of {KINDS}, got {sorted(unknown)}")
        some = np.isin(self.kinds, kinds)
        pairs = self.pairs[some]
        return Duplicates(pairs, self.kinds[some], self.correlations[some], _groups(pairs))

    def group_of(self, count: int) -> np.ndarray:
        """Return (count,) int64: each face's group, or a number of its own beyond those."""
        numbers = len(self.groups) + np.arange(count)
        for number, members in enumerate(self.groups):
            numbers[members] = number
        return numbers


def find(faces: Faces) -> Duplicates:
    """Find the faces that are the same photograph, in all of the data at once.

    Blank faces are compared by their bytes only. The time grows with the square of the number of
    faces, by 35,887 of them half a minute on one core; the memory does not.
    """
    flat = faces.images.reshape(len(faces), SIDE * SIDE)
    _, first, member = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    leader = first[member.ravel()]  # np.unique finds the first of equal rows
    copies = np.flatnonzero(leader != np.arange(len(faces)))
    pairs = [np.stack([leader[copies], copies], axis=1)]
    kinds, correlations = [np.full(len(copies), KINDS[0])], [np.ones(len(copies))]
    single = np.sort(first)
    single = single[~blanks(faces.take(single))]
    for kind, other in ((KINDS[1], faces.images), (KINDS[2], faces.images[:, :, ::-1])):
        proposed = single[_close(_bits(faces.images[single]), _bits(other[single]))]
        fit = np.array([_aligned(faces.images[i], other[j]) for i, j in proposed])
        same = fit >= _LEAST_CORRELATION
        pairs.append(proposed[same])
        kinds.append(np.full(int(same.sum()), kind))
        correlations.append(fit[same])
    found = np.concatenate(pairs)
    # A symmetric face is close to its twin's mirror image too; the first kind says all.
    _, kept = np.unique(found, axis=0, return_index=True)
    return Duplicates(
        found[kept],
        np.concatenate(kinds)[kept],
        np.concatenate(correlations)[kept],
        _groups(found[kept]),
    )


def blanks(faces: Faces) -> np.ndarray:
    """Return (N,) bool: which faces show nothing."""
    return np.array([_is_blank(image) for image in faces.images], bool)


def twins(faces: Faces, duplicates: Duplicates, *, usage: str = "Training") -> np.ndarray:
    """Return (N,) bool: which faces have another face of their group in an official split.

    For a test face that means that it was trained on: it is leaked.

    Raises:
        ValueError: there is no such split.
    """
    if usage not in USAGES:
        raise ValueError(f"expected a split out of {USAGES}, got {usage!r}")
    inside = faces.usages == USAGES.index(usage)
    found = np.zeros(len(faces), bool)
    for members in duplicates.groups:
        found[members] = inside[members].sum() - inside[members] > 0
    return found


def redundant(faces: Faces, duplicates: Duplicates) -> np.ndarray:
    """Return (N,) bool: the Training faces without which no photograph is trained on unduly.

    These are the twins of PublicTest and PrivateTest faces, and of twins within Training all but
    one, a face with their most frequent label. Test faces stay, so that published figures on
    the official splits can be compared.
    """
    training = USAGES.index("Training")
    dropped = np.zeros(len(faces), bool)
    for members in duplicates.groups:
        train = members[faces.usages[members] == training]
        dropped[train] = True
        if len(train) == len(members):
            labels = faces.labels[train]
            dropped[train[np.argmax(labels == np.bincount(labels).argmax())]] = False
    return dropped


def deduplicated(faces: Faces, duplicates: Duplicates) -> Faces:
    """Return the faces without the :func:`redundant` ones."""
    return faces.take(~redundant(faces, duplicates))


def conflicting(faces: Faces, duplicates: Duplicates) -> np.ndarray:
    """Return (groups,) bool: whose faces do not all have the same label."""
    return np.array([len(set(faces.labels[m].tolist())) > 1 for m in duplicates.groups], bool)


def _is_blank(image: np.ndarray) -> bool:
    detail = cv2.Laplacian(image, cv2.CV_32F).std()
    return bool(image.std() < _LEAST_DEVIATION or detail < _LEAST_DETAIL)


def _bits(images: np.ndarray) -> np.ndarray:
    """Return (N, 144) hashes as float32 -1 and 1, whose products count equal bits."""
    hashes = [
        imagehash.phash(Image.fromarray(image), hash_size=_HASH_SIDE).hash.ravel()
        for image in images
    ]
    bits = np.array(hashes, np.float32).reshape(len(images), _HASH_SIDE**2)
    return 2 * bits - 1


def _close(bits: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return (P, 2) the pairs i < j whose hashes differ in few bits."""
    least = _HASH_SIDE**2 - 2 * _MOST_BITS
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(bits), _CHUNK):
        products = bits[start : start + _CHUNK] @ others[start:].T
        pairs = np.stack(np.nonzero(products >= least), axis=1) + start
        found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(found)


def _aligned(image: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two faces after the best affine motion, 0 if there is none."""
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    start, everywhere = np.eye(2, 3, dtype=np.float32), np.ones(image.shape, np.uint8)
    other = np.ascontiguousarray(other)
    try:
        value, motion = cv2.findTransformECC(
            image, other, start, cv2.MOTION_AFFINE, stop, everywhere, 3
        )
    except cv2.error:  # it does not converge: nothing fits
        return 0.0
    # A motion that halves or doubles the area compares other things than two crops.
    return float(value) if 0.5 < abs(np.linalg.det(motion[:, :2])) < 2 else 0.0


def _groups(pairs: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(_connected(pairs)) if len(pairs) else ()


def _connected(pairs: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the indices that pairs connect, group by group."""
    nodes, compact = np.unique(pairs, return_inverse=True)
    compact = compact.reshape(pairs.shape)
    size = (len(nodes), len(nodes))
    graph = coo_matrix((np.ones(len(pairs)), (compact[:, 0], compact[:, 1])), size)
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group, kind="stable")
    yield from np.split(nodes[order], np.flatnonzero(np.diff(group[order])) + 1)

"""Duplicate photographs in FER2013 (identical, re-cropped or mirrored), and blank images.

A 12x12 perceptual hash of the 48x48 image proposes pairs: its 144 bits differ in about 72 between
unrelated faces, and in at most 36 in a proposed pair. One image of each pair is then registered
onto the other by an affine transform (ECC). The pair is a duplicate if the two correlate by at
least 0.97, which does not depend on brightness and contrast.

Choice of the threshold: of the 8,300 pairs that the hash proposes in Training and PublicTest, 2,453
correlate by more than 0.99, 80 by 0.95 to 0.96, and 1,600 by 0.8 to 0.9. The distribution has two
modes, duplicates and similar faces, separated at 0.95. As a control, faces were paired with mirror
images of other faces, where true pairs are rare: 15 of 4,079 pairs are between 0.96 and 0.98. All
of 78 pairs drawn from 0.97 to 0.99 are duplicates by eye. Duplicates below the threshold are
missed: of 600 real faces that were re-cropped and brightened, 99% are found if the crop is one
pixel narrower on each side, 88% if it lacks two pixels at a corner, 22% if three. The number of
duplicates is therefore a lower bound.
"""

from __future__ import annotations

import dataclasses

import cv2
import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .faces import SIDE, USAGES, Faces

#: Kinds of duplicates: identical pixels, another crop or copy, the mirror image.
KINDS = ("exact", "near", "mirrored")

_HASH_SIDE = 12
_MOST_BITS = 36
_LEAST_CORRELATION = 0.97
_CHUNK = 512  # rows per matrix product of the hashes: 70 MB for all of FER2013

# Blank images have nearly constant grey levels, or a gradient only. In Training and PublicTest the
# standard deviation of blanks is below 4 and that of dark faces above 9; the standard deviation of
# the Laplacian is below 2 for blanks and above 6 for blurred faces.
_LEAST_DEVIATION, _LEAST_DETAIL = 6.0, 4.0


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Pairs and groups of images that show the same photograph.

    Attributes:
        pairs: (P, 2) int64 indices, the smaller one first. Of several identical images, only the
            first is paired with the others and with further images.
        kinds: (P,) str, out of :data:`KINDS`.
        correlations: (P,) correlation of the registered images; 1 for identical ones.
        groups: connected components of the pairs, each sorted, ordered by their first image.
    """

    pairs: np.ndarray
    kinds: np.ndarray
    correlations: np.ndarray
    groups: tuple[np.ndarray, ...]

    def only(self, *kinds: str) -> Duplicates:
        """Keep the pairs of some kinds, and the groups that these form."""
        some = np.isin(self.kinds, kinds)
        pairs = self.pairs[some]
        return Duplicates(pairs, self.kinds[some], self.correlations[some], _groups(pairs))

    def group_of(self, count: int) -> np.ndarray:
        """Return the group of each of ``count`` images, (count,) int64.

        Images without duplicates get unique numbers, which follow those of the groups.
        """
        numbers = len(self.groups) + np.arange(count)
        for number, members in enumerate(self.groups):
            numbers[members] = number
        return numbers


def find(faces: Faces) -> Duplicates:
    """Find duplicates across all splits.

    Blank images are only compared for identity. Time is quadratic in the number of images: half a
    minute on one core for all 35,887.
    """
    flat = faces.images.reshape(len(faces), SIDE * SIDE)
    _, first, member = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    leader = first[member.ravel()]  # np.unique returns the first of equal rows
    copies = np.flatnonzero(leader != np.arange(len(faces)))
    pairs = [np.stack([leader[copies], copies], axis=1)]
    kinds, correlations = [np.full(len(copies), KINDS[0])], [np.ones(len(copies))]
    single = np.sort(first)
    single = single[~blanks(faces.take(single))]
    for kind, other in ((KINDS[1], faces.images), (KINDS[2], faces.images[:, :, ::-1])):
        proposed = single[_close(_bits(faces.images[single]), _bits(other[single]))]
        fit = np.array([_registered(faces.images[i], other[j]) for i, j in proposed])
        same = fit >= _LEAST_CORRELATION
        pairs.append(proposed[same])
        kinds.append(np.full(int(same.sum()), kind))
        correlations.append(fit[same])
    found = np.concatenate(pairs)
    # Duplicates of a symmetric face are both near and mirrored: keep the first kind.
    _, kept = np.unique(found, axis=0, return_index=True)
    return Duplicates(
        found[kept],
        np.concatenate(kinds)[kept],
        np.concatenate(correlations)[kept],
        _groups(found[kept]),
    )


def blanks(faces: Faces) -> np.ndarray:
    """Return which images show nothing, (N,) bool."""
    return np.array([_is_blank(image) for image in faces.images], bool)


def twins(faces: Faces, duplicates: Duplicates) -> np.ndarray:
    """Return which images have a duplicate in Training, (N,) bool: as test images they leak."""
    training = faces.usages == USAGES.index("Training")
    found = np.zeros(len(faces), bool)
    for members in duplicates.groups:
        found[members] = training[members].sum() - training[members] > 0
    return found


def redundant(faces: Faces, duplicates: Duplicates) -> np.ndarray:
    """Return which Training images to drop so that no photograph counts twice, (N,) bool.

    These are the duplicates of test images, and of a group within Training all but one image with
    the group's most frequent label. Test images stay, so that accuracies on the official splits
    remain comparable with published ones.
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


def conflicting(faces: Faces, duplicates: Duplicates) -> np.ndarray:
    """Return which groups contain different labels, (groups,) bool."""
    return np.array([len(set(faces.labels[m].tolist())) > 1 for m in duplicates.groups], bool)


def _is_blank(image: np.ndarray) -> bool:
    detail = cv2.Laplacian(image, cv2.CV_32F).std()
    return bool(image.std() < _LEAST_DEVIATION or detail < _LEAST_DETAIL)


def _bits(images: np.ndarray) -> np.ndarray:
    """Return hashes as (N, 144) float32 of -1 and 1, whose dot products count equal bits."""
    hashes = [
        imagehash.phash(Image.fromarray(image), hash_size=_HASH_SIDE).hash.ravel()
        for image in images
    ]
    bits = np.array(hashes, np.float32).reshape(len(images), _HASH_SIDE**2)
    return 2 * bits - 1


def _close(bits: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the pairs i < j whose hashes differ in at most 36 bits, (P, 2)."""
    least = _HASH_SIDE**2 - 2 * _MOST_BITS
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(bits), _CHUNK):
        products = bits[start : start + _CHUNK] @ others[start:].T
        pairs = np.stack(np.nonzero(products >= least), axis=1) + start
        found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(found)


def _registered(image: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two images after affine registration, 0 if that fails."""
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    start, everywhere = np.eye(2, 3, dtype=np.float32), np.ones(image.shape, np.uint8)
    other = np.ascontiguousarray(other)
    try:
        value, motion = cv2.findTransformECC(
            image, other, start, cv2.MOTION_AFFINE, stop, everywhere, 3
        )
    except cv2.error:  # no convergence
        return 0.0
    # A transform that halves or doubles the area does not compare two crops of one photograph.
    return float(value) if 0.5 < abs(np.linalg.det(motion[:, :2])) < 2 else 0.0


def _groups(pairs: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the connected components of the pairs."""
    if not len(pairs):
        return ()
    nodes, compact = np.unique(pairs, return_inverse=True)
    compact = compact.reshape(pairs.shape)
    size = (len(nodes), len(nodes))
    graph = coo_matrix((np.ones(len(pairs)), (compact[:, 0], compact[:, 1])), size)
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group, kind="stable")
    return tuple(np.split(nodes[order], np.flatnonzero(np.diff(group[order])) + 1))

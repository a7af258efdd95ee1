"""The face template: measured boxes, symmetry, sums, and parts that are where they should be."""

import pytest
import torch
from torch.testing import assert_close

from camlens.faces.template import (
    NAMES,
    Outlines,
    face_regions,
    face_template,
    template_outlines,
    template_points,
)

#: Medians of 1,008 FER2013 faces by a face mesh: left, top, right and bottom as parts of the crop.
MEASURED = {
    "right brow": (0.17, 0.25, 0.42, 0.33),
    "left brow": (0.58, 0.25, 0.83, 0.33),
    "right eye": (0.23, 0.36, 0.40, 0.42),
    "left eye": (0.61, 0.36, 0.77, 0.41),
    "nose": (0.38, 0.37, 0.63, 0.66),
    "mouth": (0.36, 0.72, 0.66, 0.86),
}
SIDED = (
    "right brow", "left brow", "right eye", "left eye", "nose", "mouth",
    "right cheek", "left cheek", "forehead", "chin", "background",
)  # fmt: skip


def box(mask):
    """Left, top, right and bottom of what a (H, W) mask mostly holds, as parts of the sides."""
    rows, columns = (mask >= 0.5).any(1).nonzero(), (mask >= 0.5).any(0).nonzero()
    h, w = mask.shape
    left, top = columns.min().item() / w, rows.min().item() / h
    return left, top, (columns.max().item() + 1) / w, (rows.max().item() + 1) / h


def centroid(mask):
    """x and y in pixels."""
    h, w = mask.shape
    x, y = torch.arange(w) + 0.5, torch.arange(h).unsqueeze(1) + 0.5
    return ((mask * x).sum() / mask.sum()).item(), ((mask * y).sum() / mask.sum()).item()


@pytest.mark.parametrize("name", MEASURED)
def test_unpadded_parts_fill_the_boxes_measured_on_faces(name):
    masks = face_template(200, sides=True, pad=0).pick(name).masks[0, 0]
    assert box(masks) == pytest.approx(MEASURED[name], abs=0.04)


def test_the_face_is_where_faces_were_measured():
    masks = face_template(200, pad=0).masks[0]
    left, top, right, bottom = box(1 - masks[NAMES.index("background")])
    assert (left, top, right, bottom) == pytest.approx((0.12, 0.10, 0.90, 1.0), abs=0.02)


def test_five_points_are_those_of_the_outlines():
    right, left, nose, right_corner, left_corner = template_points().tolist()
    outlines = template_outlines()
    eyes = [outlines.right_eye, outlines.left_eye]
    for point, eye in zip((right, left), eyes, strict=True):
        assert point == pytest.approx(eye[0].mean(0).tolist(), abs=0.01)
    assert right_corner[0] == pytest.approx(outlines.mouth[0, :, 0].amin().item(), abs=0.01)
    assert left_corner[0] == pytest.approx(outlines.mouth[0, :, 0].amax().item(), abs=0.01)
    assert nose[0] == pytest.approx(0.5)
    assert outlines.nose[0, :, 1].amin() < nose[1] < outlines.nose[0, :, 1].amax()


@pytest.mark.parametrize("sides", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 48, 224, (48, 64), (60, 33), (1, 48)])
def test_masks_sum_to_one_everywhere(size, sides):
    regions = face_template(size, sides=sides)
    h, w = (size, size) if isinstance(size, int) else size
    assert regions.names == (SIDED if sides else NAMES)
    assert regions.masks.shape == (1, len(regions), h, w)
    assert_close(regions.masks.sum(1), torch.ones(1, h, w), atol=1e-6, rtol=0)
    assert regions.masks.amin() >= 0


# Fails until the part between eyes and chin is a product: where less than a pixel is between the
# two lines, up to a quarter of the face became background.
def test_a_short_face_has_no_background_inside():
    outlines = template_outlines().map(lambda points: points * 48)
    eyes = torch.cat([outlines.right_eye, outlines.left_eye], dim=1)[0, :, 1].mean()
    up = outlines.mouth[..., 1].amax() - eyes
    mouth = outlines.mouth - torch.stack([torch.zeros(()), up])
    masks = face_regions(Outlines(**{**vars(outlines), "mouth": mouth}), (48, 48)).masks[0]
    inside = face_template(48).masks[0, -1] == 0
    assert masks[-1][inside].amax() < 1e-5


@pytest.mark.parametrize("size", [7, 48, (31, 48), 96])
def test_the_mirror_image_swaps_left_and_right(size):
    regions = face_template(size, sides=True)
    mirrored = regions.masks.flip(-1)
    swap = {"right": "left", "left": "right"}
    for index, name in enumerate(regions.names):
        first, _, part = name.partition(" ")
        other = regions.names.index(f"{swap[first]} {part}") if first in swap else index
        assert_close(mirrored[:, index], regions.masks[:, other], atol=2e-4, rtol=0)


def test_left_and_right_are_the_persons_own_and_sum_to_the_pair():
    sided, whole = face_template(48, sides=True), face_template(48)
    for part in ("brow", "eye", "cheek"):
        pair = sided.pick(f"right {part}", f"left {part}").masks
        assert_close(pair.sum(1), whole.pick(f"{part}s").masks[:, 0])
        assert centroid(pair[0, 0])[0] < 20
        assert centroid(pair[0, 1])[0] > 28
    same = ("nose", "mouth", "forehead", "chin", "background")
    assert torch.equal(sided.pick(*same).masks, whole.pick(*same).masks)


def test_parts_lie_in_order_from_forehead_to_chin():
    masks = dict(zip(NAMES, face_template(96).masks[0], strict=True))
    down = {name: centroid(mask)[1] for name, mask in masks.items()}
    order = ["forehead", "brows", "eyes", "nose", "mouth", "chin"]
    assert sorted(order, key=down.get) == order
    assert down["eyes"] < down["cheeks"] < down["mouth"]
    for name in NAMES:
        assert centroid(masks[name])[0] == pytest.approx(48, abs=0.05)


def test_padding_grows_the_features_and_takes_from_the_rest():
    areas = torch.stack([face_template(96, pad=p).masks.mean((-2, -1))[0] for p in (0, 0.05, 0.13)])
    growth = areas.diff(dim=0)
    assert (growth[:, :4] > 0.002).all()
    assert (growth[:, 4:] <= 1e-6).all()


def test_a_pad_is_in_distances_between_the_eyes():
    """An eye alone, so that nothing else is near: the padded area of a convex shape is known."""
    outlines = template_outlines().map(lambda points: points * 400)
    far = outlines.map(lambda points: points + 4000)
    alone = Outlines(
        **{**vars(far), "right_eye": outlines.right_eye, "left_eye": outlines.left_eye}
    )
    eyes = [face_regions(alone, (400, 400), sides=True, pad=p).masks[0, 2] for p in (0, 0.1)]
    hull = outlines.right_eye[0]
    perimeter = (hull - hull.roll(1, 0)).norm(dim=-1).sum().item()
    centres = [o[0].mean(0) for o in (outlines.right_eye, outlines.left_eye)]
    pad = 0.1 * (centres[0] - centres[1]).norm().item()
    grown = perimeter * pad + torch.pi * pad**2  # Steiner's formula
    assert (eyes[1].sum() - eyes[0].sum()).item() == pytest.approx(grown, rel=0.01)


def test_between_two_parts_the_nearer_has_the_pixel():
    from matplotlib.path import Path

    size = 96
    masks = dict(zip(SIDED, face_template(size, sides=True, pad=0.3).masks[0], strict=True))
    shapes = template_outlines().map(lambda points: points * size)
    features = {n: getattr(shapes, n.replace(" ", "_"))[0].cpu().numpy() for n in SIDED[:6]}

    def distance(name, at):
        dense = Path(features[name]).interpolated(50).vertices
        far = ((dense - at) ** 2).sum(-1).min() ** 0.5
        return -far if Path(features[name]).contains_point(at) else far

    checked = 0
    for y in range(2, size, 7):
        for x in range(1, size, 5):
            ranked = sorted((distance(n, (x + 0.5, y + 0.5)), n) for n in features)
            if ranked[1][0] - ranked[0][0] > 1.5 and ranked[0][0] < 0.3 * 0.37 * size - 1:
                assert masks[ranked[0][1]][y, x] == pytest.approx(1, abs=1e-5)
                checked += 1
    assert checked > 60


def test_a_size_may_be_a_side_or_two():
    assert torch.equal(face_template(20).masks, face_template((20, 20)).masks)
    wide = face_template((40, 80), sides=True, pad=0)
    square = face_template(80, sides=True, pad=0).masks[0]
    for index, name in enumerate(SIDED[:6]):  # the same parts of the picture, whatever its shape
        assert box(wide.masks[0, index]) == pytest.approx(box(square[index]), abs=0.03), name


@pytest.mark.parametrize("size", [0, -3, (0, 5), (5, 0)])
def test_bad_size(size):
    with pytest.raises(ValueError, match="size of at least 1x1 pixels, got"):
        face_template(size)


@pytest.mark.parametrize("pad", [-0.01, 1.5, float("nan")])
def test_bad_pad(pad):
    with pytest.raises(ValueError, match=r"pad in \[0, 1\] distances between the eyes, got"):
        face_template(48, pad=pad)


def test_each_face_of_a_batch_is_its_own():
    """A face, one that is lost, and one turned upside down."""
    upright = template_outlines().map(lambda points: points * 40)
    lost = upright.map(lambda points: points.clone())
    lost.oval[0, 3, 1] = torch.nan
    turned = upright.map(lambda points: 40 - points)
    batch = Outlines(
        **{n: torch.cat([getattr(f, n) for f in (upright, lost, turned)]) for n in vars(upright)}
    )
    masks = face_regions(batch, (40, 40), sides=True).masks
    alone = face_template(40, sides=True).masks[0]
    assert_close(masks[0], alone, atol=1e-5, rtol=0)
    assert masks[1].count_nonzero() == 0
    assert_close(masks[2], alone.flip(-1, -2), atol=5e-4, rtol=0)

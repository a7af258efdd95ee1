"""Points on faces: what moves them moves the masks; areas in closed form; lost and odd faces."""

import math

import pytest
import torch
from torch.testing import assert_close

from camlens.faces.landmarks import MESH, from_landmarks
from camlens.faces.template import NAMES, face_template, template_points


def five(side=48.0):
    return template_points() * side


def ellipse(count, centre, width, height, start=math.pi):
    """Points clockwise on the picture, (count, 2), the first on the left."""
    angle = start + torch.arange(count) * (2 * math.pi / count)
    return torch.stack([centre[0] + width * angle.cos(), centre[1] + height * angle.sin()], dim=-1)


def smoothed(count):
    """The area that `smooth` makes of a regular polygon with corners on the unit circle."""
    step = 2 * math.pi / count
    between = (9 * math.cos(step / 2) - math.cos(3 * step / 2)) / 8
    return count * between * math.sin(step / 2)


def centroids(masks):
    """(R, 2) x and y of (R, H, W) masks."""
    h, w = masks.shape[-2:]
    x, y = torch.arange(w) + 0.5, torch.arange(h).unsqueeze(1) + 0.5
    total = masks.sum((-2, -1))
    return torch.stack([(masks * a).sum((-2, -1)) / total for a in (x, y)], dim=-1)


def ibug():
    """iBUG's 68 points of a face drawn with a ruler and a compass, on 200 x 200 pixels."""
    points = torch.zeros(68, 2)
    turn = torch.arange(17) * (math.pi / 16)
    points[:17] = torch.stack([100 - 70 * turn.cos(), 90 + 90 * turn.sin()], dim=-1)  # jaw
    points[17:22] = torch.stack([torch.linspace(45, 85, 5), torch.full((5,), 65.0)], dim=-1)
    points[22:27] = torch.stack([torch.linspace(115, 155, 5), torch.full((5,), 65.0)], dim=-1)
    points[27:31] = torch.stack([torch.full((4,), 100.0), torch.linspace(90, 115, 4)], dim=-1)
    points[31:36] = torch.stack([torch.linspace(88, 112, 5), torch.full((5,), 122.0)], dim=-1)
    points[36:42] = ellipse(6, (65, 88), 8, 8)
    points[42:48] = ellipse(6, (135, 88), 8, 8)
    points[48:60] = ellipse(12, (100, 150), 24, 9)
    points[60:68] = ellipse(8, (100, 150), 14, 4)
    return points


def mesh():
    """MediaPipe's 478 points, of which only those of outlines are anywhere."""
    points = torch.full((478, 2), 100.0)
    shapes = {
        "right_eye": ((65, 88), 12, 6),
        "left_eye": ((135, 88), 12, 6),
        "mouth": ((100, 150), 24, 9),
        "oval": ((100, 100), 75, 92),
        "right_brow": ((65, 62), 20, 4),
        "left_brow": ((135, 62), 20, 4),
        "nose": ((100, 112), 12, 20),
    }
    for part, (centre, width, height) in shapes.items():
        points[list(MESH[part])] = ellipse(len(MESH[part]), centre, width, height)
    return points


@pytest.mark.parametrize("sides", [False, True])
@pytest.mark.parametrize("pad", [0.0, 0.05, 0.13])
def test_points_in_the_templates_places_give_the_template(sides, pad):
    found = from_landmarks(five(), (48, 48), sides=sides, pad=pad)
    template = face_template(48, sides=sides, pad=pad)
    assert found.names == template.names
    assert_close(found.masks, template.masks, atol=2e-4, rtol=0)


def test_whole_moves_of_the_points_move_the_masks():
    """On a canvas wide enough: a shift is a roll, a quarter turn rot90, a mirror a flip."""
    points = five() + 30
    masks = from_landmarks(points, (108, 108), sides=True).masks
    right = from_landmarks(points + torch.tensor([7.0, -5.0]), (108, 108), sides=True).masks
    assert_close(right, masks.roll((-5, 7), (-2, -1)), atol=1e-3, rtol=0)
    turned = torch.stack([108 - points[:, 1], points[:, 0]], dim=-1)  # clockwise on the picture
    turned = from_landmarks(turned, (108, 108), sides=True).masks
    assert_close(turned, masks.rot90(-1, (-2, -1)), atol=1e-3, rtol=0)
    mirrored = torch.stack([108 - points[:, 0], points[:, 1]], dim=-1)[[1, 0, 2, 4, 3]]
    mirrored = from_landmarks(mirrored, (108, 108)).masks
    whole = from_landmarks(points, (108, 108)).masks
    assert_close(mirrored, whole.flip(-1), atol=1e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("angle", "scale", "shift"), [(25, 1.3, (31, 12)), (-70, 0.8, (-9.3, 4.6)), (180, 1.0, (0, 7))]
)
def test_similarities_carry_areas_and_centres(angle, scale, shift):
    angle = math.radians(angle)
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    middle = torch.tensor([150.0, 150.0])

    def move(points):
        return (points - middle) @ turn * scale + middle + torch.tensor(shift)

    points = five(96.0) + 102
    before = from_landmarks(points, (300, 300), sides=True).masks[0, :-1]
    after = from_landmarks(move(points), (300, 300), sides=True).masks[0, :-1]
    area = after.sum((-2, -1)) / before.sum((-2, -1))
    assert_close(area, torch.full((10,), scale**2), atol=0.02, rtol=0)
    assert_close(centroids(after), move(centroids(before)), atol=0.25, rtol=0)


def test_five_points_are_fitted_by_least_squares():
    """Beside a general solver: points that no similarity meets."""
    target = five() + torch.randn(5, 2) * 2
    known = template_points()
    rows = []
    for (x, y), _ in zip(known.tolist(), target, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
    a, b, c, d = torch.linalg.lstsq(torch.tensor(rows), target.reshape(-1, 1)).solution.flatten()
    turn = torch.stack([torch.stack([a, b]), torch.stack([-b, a])])
    fitted = known @ turn + torch.stack([c, d])
    expected = from_landmarks(fitted, (48, 48)).masks
    assert (fitted - target).abs().amax() > 0.5
    assert_close(from_landmarks(target, (48, 48)).masks, expected, atol=2e-3, rtol=0)


def test_areas_of_a_face_of_68_points_drawn_with_a_compass():
    """Eyes and mouth are smoothed polygons; a brow is a line, so padded it is a stadium."""
    masks = dict(
        zip(NAMES, from_landmarks(ibug(), (200, 200), pad=0).masks[0].sum((-2, -1)), strict=True)
    )
    assert masks["eyes"].item() == pytest.approx(2 * smoothed(6) * 64, rel=0.01)
    assert masks["mouth"].item() == pytest.approx(smoothed(12) * 24 * 9, rel=0.01)
    # The jaw is half an ellipse; so is the forehead, 0.27 of brows to chin above the brows.
    top = 90 - (65 - 0.27 * (180 - 65))
    face = math.pi * 70 * (90 + top) / 2
    assert 200**2 - masks["background"].item() == pytest.approx(face, rel=0.02)
    pad = 0.06
    padded = from_landmarks(ibug(), (200, 200), pad=pad).pick("brows").masks.sum().item()
    width = pad * 70  # between the eyes
    assert padded == pytest.approx(2 * (2 * width * 40 + math.pi * width**2), rel=0.02)


@pytest.mark.parametrize("points", [468, 478])
def test_areas_of_a_mesh_drawn_with_a_compass(points):
    found = from_landmarks(mesh()[:points], (200, 200), sides=True, pad=0)
    area = dict(zip(found.names, found.masks[0].sum((-2, -1)).tolist(), strict=True))
    for name, width, height, count in (
        ("right eye", 12, 6, 16),
        ("left eye", 12, 6, 16),
        ("mouth", 24, 9, 20),
        ("nose", 12, 20, 20),
        ("right brow", 20, 4, 10),
    ):
        inscribed = count / 2 * math.sin(2 * math.pi / count) * width * height
        assert area[name] == pytest.approx(inscribed, rel=0.02), name
    oval = 36 / 2 * math.sin(2 * math.pi / 36) * 75 * 92
    assert 200**2 - area["background"] == pytest.approx(oval, rel=0.01)
    assert area["right cheek"] == pytest.approx(area["left cheek"], rel=0.01)


def test_the_mesh_is_read_as_mediapipe_connects_it():
    """Each outline is a walk along MediaPipe's own connections, once around where it is closed."""
    pytest.importorskip("mediapipe")
    from mediapipe.tasks.python.vision.face_landmarker import FaceLandmarksConnections as Known

    def edges(connections):
        return {frozenset((c.start, c.end)) for c in connections}

    def walk(part):
        points = MESH[part]
        return {frozenset(pair) for pair in zip(points, (*points[1:], points[0]), strict=True)}

    assert walk("right_eye") == edges(Known.FACE_LANDMARKS_RIGHT_EYE)
    assert walk("left_eye") == edges(Known.FACE_LANDMARKS_LEFT_EYE)
    assert walk("oval") == edges(Known.FACE_LANDMARKS_FACE_OVAL)
    assert walk("mouth") < edges(Known.FACE_LANDMARKS_LIPS)
    for side, known in (
        ("right_brow", Known.FACE_LANDMARKS_RIGHT_EYEBROW),
        ("left_brow", Known.FACE_LANDMARKS_LEFT_EYEBROW),
    ):
        assert edges(known) == walk(side) & edges(known)
        assert len(walk(side) - edges(known)) == 2  # from one line of the brow to the other
    for part in MESH:
        assert len(set(MESH[part])) == len(MESH[part])
    mirrored = {0: "right", 1: "left"}
    for part in ("brow", "eye"):
        assert len(MESH[f"{mirrored[0]}_{part}"]) == len(MESH[f"{mirrored[1]}_{part}"])


@pytest.mark.parametrize("points", [five, ibug, mesh])
def test_sums_and_sides(points):
    size = (48, 48) if points is five else (200, 200)
    sided = from_landmarks(points(), size, sides=True)
    whole = from_landmarks(points(), size)
    assert_close(whole.masks.sum(1), torch.ones(1, *size), atol=1e-5, rtol=0)
    assert whole.names == NAMES
    for part in ("brow", "eye", "cheek"):
        right, left = sided.pick(f"right {part}", f"left {part}").masks[0]
        assert_close(right + left, whole.pick(f"{part}s").masks[0, 0])
        assert centroids(right[None])[0, 0] < size[1] / 2 < centroids(left[None])[0, 0]


def test_a_batch_is_its_faces():
    points = torch.stack([five(), five() * 0.5, five() + torch.randn(5, 2)])
    found = from_landmarks(points, (48, 40)).masks
    for index in range(3):
        assert_close(found[index], from_landmarks(points[index], (48, 40)).masks[0])
    assert from_landmarks(five().double(), (48, 40)).masks.dtype == torch.float32
    half = from_landmarks(five().half(), (48, 40)).masks
    assert_close(half[0], found[0], atol=0.05, rtol=0)


@pytest.mark.parametrize("points", [five, ibug, mesh])
def test_no_face_is_nothing_at_all(points):
    batch = torch.stack([points(), points(), points()])
    batch[1] = torch.nan
    batch[2, 2, 0] = torch.nan
    if points is mesh:
        batch[2, MESH["nose"][3], 0] = torch.nan
    found = from_landmarks(batch, (60, 60))
    assert found.masks[1:].count_nonzero() == 0
    assert_close(found.masks[:1], from_landmarks(points(), (60, 60)).masks)


# Fails until from_landmarks looks at all points: outlines leave some out, but its docstring says
# "an image with a NaN among its points has no face".
@pytest.mark.parametrize(("points", "unused"), [(ibug, 30), (ibug, 64), (mesh, 470), (mesh, 5)])
def test_any_point_lost_is_a_face_lost(points, unused):
    lost = points()
    lost[unused, 1] = torch.nan
    assert from_landmarks(lost, (200, 200)).masks.count_nonzero() == 0


def test_faces_beyond_the_image_are_cut_off():
    wide = from_landmarks(five() + 50, (148, 148)).masks
    for shift in (-30.0, 25.0):
        cut = from_landmarks(five() + shift, (48, 48)).masks
        at = 50 - int(shift)
        assert_close(cut, wide[..., at : at + 48, at : at + 48], atol=1e-3, rtol=0)
    gone = from_landmarks(five() + 500, (48, 48)).masks[0]
    assert gone[:-1].count_nonzero() == 0
    assert (gone[-1] == 1).all()
    filled = from_landmarks(five() * 100 - torch.tensor([2400.0, 3000.0]), (48, 48)).masks[0]
    assert filled[-1].count_nonzero() == 0


@pytest.mark.parametrize("count", [5, 68, 478])
@pytest.mark.parametrize("at", [20.5, 20.0, 1e12])
def test_points_that_are_all_one_are_no_face(count, at):
    points = torch.stack([torch.full((count, 2), at), torch.rand(count, 2) * 48])
    masks = from_landmarks(points, (48, 48)).masks
    assert masks[0].count_nonzero() == 0
    assert_close(masks[1].sum(0), torch.ones(48, 48), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("points", "error", "match"),
    [
        ([[1.0, 2.0]] * 5, TypeError, "floating-point tensor, got list"),
        (torch.ones(5, 2).long(), TypeError, "got torch.int64"),
        (torch.ones(4, 2), ValueError, r"5 points \(YuNet\), 68 .*478 .* per face, got 4"),
        (torch.ones(1, 469, 2), ValueError, "got 469"),
        (torch.ones(5, 3), ValueError, r"\(N, P, 2\) or \(P, 2\), got .*5, 3\)"),
        (torch.ones(5), ValueError, r"got \(5,\)"),
        (torch.ones(1, 1, 5, 2), ValueError, r"got \(1, 1, 5, 2\)"),
        (torch.ones(0, 5, 2), ValueError, r"got \(0, 5, 2\)"),
        (torch.full((5, 2), torch.inf), ValueError, "finite, or NaN for images without a face"),
        (torch.full((5, 2), -torch.inf), ValueError, "finite"),
    ],
)
def test_bad_points(points, error, match):
    with pytest.raises(error, match=match):
        from_landmarks(points, (48, 48))


def test_bad_pad():
    with pytest.raises(ValueError, match=r"pad in \[0, 1\]"):
        from_landmarks(five(), (48, 48), pad=-0.1)

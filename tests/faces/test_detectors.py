"""Detectors: points where the eyes, nose and mouth are, in the photograph's own pixels."""

import contextlib
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from camlens.faces import MediaPipe, YuNet
from camlens.faces import yunet as yunet_module
from camlens.faces.detector import Detector, Faces

RIGHT_EYE = [33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7]
LEFT_EYE = [263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249]


class Marks(Detector):
    """Takes what is bright in a channel for a face, and its centre for the points."""

    _points = 2

    def __init__(self, path, **options):
        options = {"threshold": 0.5, "enlarge": None, "border": 0.0} | options
        super().__init__(path, model="yunet", **options)
        self.seen = []

    @contextlib.contextmanager
    def _opened(self, faces):
        yield self.find

    def find(self, picture):
        self.seen.append(picture)
        rows = []
        for channel, confidence in enumerate((0.5, 0.75)):
            y, x = np.nonzero(picture[..., channel] > 100)
            if len(x):
                left, top, right, bottom = x.min(), y.min(), x.max() + 1, y.max() + 1
                centre = [(left + right) / 2, (top + bottom) / 2]
                rows.append([left, top, right - left, bottom - top, confidence, *centre, *centre])
        return np.array(rows, np.float32).reshape(-1, 9)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    return path


@pytest.fixture
def squares():
    """Return (1, 3, 60, 80) uint8: a red square of 10 pixels, a green one of 20."""
    picture = torch.zeros(1, 3, 60, 80, dtype=torch.uint8)
    picture[:, 0, 5:15, 50:60] = 200
    picture[:, 1, 30:50, 10:30] = 200
    return picture


@pytest.mark.parametrize(
    ("enlarge", "border"), [(1, 0.0), (3, 0.0), (1, 0.25), (4, 0.1), (None, 0)]
)
def test_the_way_back_to_the_photographs_pixels(file, squares, enlarge, border):
    faces = Marks(file, enlarge=enlarge, border=border)(squares, faces=2)
    boxes = torch.tensor([[[10.0, 30, 20, 20], [50, 5, 10, 10]]])
    # The blurred rim of an enlarged square may count or not: a part of a pixel.
    assert_close(faces.boxes, boxes, atol=1.0 if enlarge != 1 else 0, rtol=0)
    centres = torch.tensor([[[20.0, 40], [55, 10]]])[:, :, None].expand(-1, -1, 2, -1)
    assert_close(faces.points, centres, atol=0.01, rtol=0)
    assert_close(faces.confidence, torch.tensor([[0.75, 0.5]]))


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((48, 48), {}, (240, 240)),  # five times
        ((48, 60), {"border": 0.25}, (72 * 5, 90 * 5)),
        ((100, 239), {}, (300, 717)),
        ((240, 900), {}, (240, 900)),
        ((10, 10), {"enlarge": 2, "border": 0.5}, (40, 40)),
    ],
)
def test_the_size_that_is_searched(file, size, options, expected):
    detector = Marks(file, **options)
    detector(torch.zeros(1, 3, *size))
    assert detector.seen[0].shape == (*expected, 3)


def test_the_border_repeats_the_edge(file):
    ramp = torch.arange(4, dtype=torch.uint8).mul(50).expand(1, 1, 4, 4)
    detector = Marks(file, enlarge=1, border=0.5)
    detector(ramp)
    assert detector.seen[0][0, :, 0].tolist() == [0, 0, 0, 50, 100, 150, 150, 150]


def test_where_nothing_is_found_the_border_is_left_out(file, squares):
    detector = Marks(file, enlarge=1, border=0.5)
    faces = detector(torch.cat([squares, squares * 0]))
    assert faces.count.tolist() == [2, 0]
    assert [seen.shape[:2] for seen in detector.seen] == [(120, 160), (120, 160), (60, 80)]


def test_the_largest_come_first_and_count_tells_of_the_rest(file, squares):
    batch = torch.cat([squares, torch.zeros_like(squares)])
    one, three = Marks(file)(batch), Marks(file)(batch, faces=3)
    assert one.count.tolist() == three.count.tolist() == [2, 0]
    assert one.found.tolist() == [[True], [False]]
    assert three.found.tolist() == [[True, True, False], [False] * 3]
    assert torch.equal(one.points[0, 0], three.points[0, 0])
    assert three.points[~three.found].isnan().all()
    assert three.boxes[~three.found].isnan().all()
    assert three.confidence[~three.found].isnan().all()


def test_grey_colour_uint8_and_float_are_one(file):
    detector = Marks(file, enlarge=1)
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    inputs = [levels, levels.expand(-1, 3, -1, -1), levels / 255, levels.double() / 255]
    for photos in inputs:
        detector(photos)
    for seen in detector.seen:
        assert (seen == levels[0, 0, ..., None].cpu().numpy()).all()


def test_the_photographs_are_left_alone(file):
    photos = torch.rand(1, 3, 8, 8, requires_grad=True)
    before = photos.detach().clone()
    faces = Marks(file)(photos)
    assert torch.equal(photos, before)
    assert not faces.points.requires_grad


@pytest.mark.parametrize(
    ("photos", "options", "error", "message"),
    [
        (torch.zeros(3, 8, 8), {}, ValueError, r"expected images as .* got \(3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8).long(), {}, TypeError, "expected uint8 or floating-point"),
        (torch.full((1, 3, 8, 8), 2.0), {}, ValueError, "undo the normalisation"),
        (torch.full((1, 3, 8, 8), torch.nan), {}, ValueError, r"expected images in \[0, 1\]"),
        (np.zeros((1, 3, 8, 8)), {}, TypeError, "expected images as a tensor, got ndarray"),
        (torch.zeros(0, 3, 8, 8), {}, ValueError, "expected at least one photograph"),
        (torch.zeros(1, 3, 8, 8), {"faces": 0}, ValueError, "at least 1, got 0"),
        (torch.zeros(1, 3, 8, 8), {"faces": 1.5}, ValueError, "at least 1, got 1.5"),
    ],
)
def test_bad_photographs(file, photos, options, error, message):
    with pytest.raises(error, match=message):
        Marks(file)(photos, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0}, r"threshold in \(0, 1\), got 0"),
        ({"threshold": 1.5}, r"threshold in \(0, 1\), got 1.5"),
        ({"enlarge": 0}, "enlarge as an integer of at least 1, got 0"),
        ({"enlarge": 1.5}, "enlarge as an integer of at least 1, got 1.5"),
        ({"border": -0.1}, r"border as a fraction in \[0, 1\], got -0.1"),
    ],
)
def test_bad_options(file, options, message):
    with pytest.raises(ValueError, match=message):
        Marks(file, **options)


@pytest.mark.parametrize(
    ("detector", "library", "message"),
    [
        (YuNet, "cv2", r'YuNet needs OpenCV: pip install "camlens\[regions\]"'),
        (MediaPipe, "mediapipe", r'MediaPipe needs mediapipe: pip install "camlens\[faces\]"'),
    ],
)
def test_a_missing_library_is_named(monkeypatch, file, detector, library, message):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=message):
        detector(file)


def test_a_file_that_is_no_model(file):
    pytest.importorskip("cv2")
    file.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"OpenCV .* could not read .*model.onnx as a face model"):
        YuNet(file)(torch.zeros(1, 3, 32, 32))


def test_a_file_that_is_no_landmarker(file):
    pytest.importorskip("mediapipe")
    with pytest.raises(ValueError, match=r"MediaPipe could not read .*model.onnx as a face model"):
        MediaPipe(file)(torch.zeros(1, 3, 32, 32))


def test_a_missing_file_is_named(tmp_path):
    pytest.importorskip("cv2")
    with pytest.raises(FileNotFoundError, match=r"absent.onnx, which path names"):
        YuNet(tmp_path / "absent.onnx")


def row(left, top, width, height, confidence):
    return [left, top, width, height, confidence, *range(10)]


def test_findings_of_one_face_are_averaged_by_confidence():
    rows = np.array([row(0, 0, 8, 10, 0.2), row(2, 0, 10, 10, 0.6)], np.float32)
    rows[0, 5:], rows[1, 5:] = 4, 8
    merged = yunet_module._merged(rows)
    # Common 60 of 120, exactly half of the union: two faces by the first rule, dropped by the
    # second, since it is more than half of the smaller.
    assert_close(merged, rows[1:])
    rows[0, 2] = 9  # common 70 of 120
    merged = yunet_module._merged(rows)
    assert merged.shape == (1, 15)
    assert_close(merged[0, :5], np.float32([1.5, 0, 9.75, 10, 0.6]))
    assert_close(merged[0, 5:], np.full(10, 7, np.float32))


def test_parts_of_a_face_are_no_faces():
    whole, part, beside = row(0, 0, 40, 40, 0.9), row(5, 5, 10, 10, 0.7), row(60, 0, 9, 9, 0.65)
    merged = yunet_module._merged(np.array([part, whole, beside], np.float32))
    assert_close(merged, np.array([whole, beside], np.float32))
    assert yunet_module._merged(np.empty((0, 15), np.float32)).shape == (0, 15)


def test_a_mirrored_row_is_mirrored_back():
    mirrored = row(10, 3, 20, 30, 0.5)
    mirrored[5:] = [28, 9, 14, 8, 20, 15, 26, 22, 16, 21]
    back = yunet_module._mirrored(np.array([mirrored], np.float32), 100)[0]
    expected = [70, 3, 20, 30, 0.5, 86, 8, 72, 9, 80, 15, 84, 21, 74, 22]
    assert_close(back, np.float32(expected))


def test_the_sizes_of_the_search():
    assert yunet_module._sizes(240, 240) == [(240, 240)]
    assert yunet_module._sizes(401, 9) == [(401, 9), (200, 4)]
    assert yunet_module._sizes(3001, 2000) == [(1500, 1000), (750, 500), (375, 250)]
    assert yunet_module._sizes(7000, 1) == [(875, 1), (437, 1), (218, 1)]


def as_batch(pixels, device):
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].to(device)


@pytest.fixture(scope="module")
def hopper(device):
    """Return a photograph, (1, 3, 600, 512) uint8; the face fills about (168, 116, 364, 312)."""
    import matplotlib.cbook
    from matplotlib.image import imread

    path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    return as_batch(imread(path), device)


@pytest.fixture(scope="module")
def astronaut(device):
    """Return a photograph, (1, 3, 512, 512) uint8; the face fills about (166, 57, 278, 169)."""
    data = pytest.importorskip("skimage.data")
    return as_batch(data.astronaut(), device)


@pytest.fixture(scope="module")
def yunet(shared):
    pytest.importorskip("cv2")
    return YuNet(shared / "models" / "face_detection_yunet_2026may.onnx")


@pytest.fixture(scope="module")
def mesh(shared):
    pytest.importorskip("mediapipe")
    return MediaPipe(shared / "models" / "face_landmarker.task")


def five(points):
    """Return YuNet's five points of a mesh."""
    eyes = [points[..., RIGHT_EYE, :].mean(-2), points[..., LEFT_EYE, :].mean(-2)]
    return torch.stack([*eyes, *points[..., [4, 61, 291], :].unbind(-2)], dim=-2)


# Read off the two photographs by eye, on a grid: x and y of the person's right pupil, left pupil,
# tip of the nose, right and left corner of the mouth.
SEEN = {
    "hopper": [[222, 190], [305, 187], [270, 237], [230, 281], [308, 278]],
    "astronaut": [[203, 102], [247, 103], [223, 127], [204, 140], [244, 141]],
}


@pytest.mark.shared
@pytest.mark.parametrize(("which", "tolerance"), [("yunet", 0.15), ("mesh", 0.12)])
@pytest.mark.parametrize("name", sorted(SEEN))
def test_the_points_lie_on_the_features(request, name, which, tolerance):
    faces = request.getfixturevalue(which)(request.getfixturevalue(name))
    assert faces.count.tolist() == [1]
    points = faces.points[0, 0] if which == "yunet" else five(faces.points[0, 0])
    seen = torch.tensor(SEEN[name], dtype=torch.float32)
    eyes = (seen[0] - seen[1]).norm()
    assert ((points - seen).norm(dim=-1) < tolerance * eyes).all()
    left, top, width, height = faces.boxes[0, 0].tolist()
    assert ((seen[:, 0] > left) & (seen[:, 0] < left + width)).all()
    assert ((seen[:, 1] > top) & (seen[:, 1] < top + height)).all()


@pytest.mark.shared
def test_only_yunet_is_confident(yunet, mesh, astronaut):
    assert 0.9 < yunet(astronaut).confidence.item() <= 1
    assert mesh(astronaut).confidence.isnan().all()


@pytest.mark.shared
@pytest.mark.parametrize("name", sorted(SEEN))
def test_both_detectors_agree(yunet, mesh, request, name):
    photo = request.getfixturevalue(name)
    one, other = yunet(photo), mesh(photo)
    points = five(other.points[0, 0])
    eyes = (points[0] - points[1]).norm()
    apart = (one.points[0, 0] - points).norm(dim=-1) / eyes
    assert (apart[:2] < 0.1).all()
    assert (apart[2:] < 0.2).all()
    corner, size = other.boxes[0, 0].split(2)
    assert torch.equal(other.points[0, 0].amin(0), corner)
    assert_close(other.points[0, 0].amax(0), corner + size)


@pytest.mark.shared
def test_a_mirror_image_has_mirrored_points(yunet, hopper):
    there, back = yunet(hopper), yunet(hopper.flip(-1))
    points = back.points[0, 0, [1, 0, 2, 4, 3]]
    points[:, 0] = 512 - points[:, 0]
    assert_close(points, there.points[0, 0], atol=0.01, rtol=0)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("which", ["yunet", "mesh"])
def test_two_faces_the_larger_first(request, which, hopper, astronaut):
    detector = request.getfixturevalue(which)
    # Close enough for MediaPipe, which sees no face that is less than a tenth of the side.
    photo = torch.cat([astronaut[..., :320, 60:380], hopper[..., 20:340, 105:425]], dim=-1)
    one, two, three = (detector(photo, faces=f) for f in (1, 2, 3))
    assert one.count.item() == two.count.item() == three.count.item() == 2
    assert torch.equal(one.points, two.points[:, :1])
    assert torch.equal(two.points, three.points[:, :2])
    assert three.found.tolist() == [[True, True, False]]
    alone = [
        detector(hopper).points + torch.tensor([320.0 - 105, -20]),
        detector(astronaut).points - torch.tensor([60.0, 0]),
    ]
    for face, points in enumerate(alone):
        width = two.boxes[0, face, 2]
        assert (two.points[0, face] - points[0, 0]).norm(dim=-1).mean() < 0.1 * width


@pytest.mark.shared
@pytest.mark.parametrize("which", ["yunet", "mesh"])
def test_no_face_is_a_stated_outcome(request, which):
    faces = request.getfixturevalue(which)(torch.full((2, 1, 100, 100), 0.5), faces=2)
    assert faces.count.tolist() == [0, 0]
    assert not faces.found.any()
    assert faces.points.isnan().all()


@pytest.mark.shared
@pytest.mark.parametrize("which", ["yunet", "mesh"])
def test_a_face_cut_by_the_edge_keeps_its_points_outside(request, which, hopper):
    detector = request.getfixturevalue(which)
    whole = detector(hopper)
    cut = detector(hopper[..., 245:])  # beside the person's right eye
    assert cut.count.item() == 1
    assert cut.points[0, 0, :, 0].min() < 0
    apart = cut.points[0, 0] + torch.tensor([245.0, 0]) - whole.points[0, 0]
    assert apart.norm(dim=-1).mean() < 0.15 * whole.boxes[0, 0, 2]


@pytest.mark.shared
@pytest.mark.parametrize("which", ["yunet", "mesh"])
def test_a_tiny_face_is_not_found(request, which, hopper):
    small = torch.nn.functional.interpolate(hopper.float(), (18, 16), mode="area").byte()
    photo = torch.full((1, 3, 240, 240), 128, dtype=torch.uint8)
    photo[..., 100:118, 100:116] = small  # the face has 6 pixels
    faces = request.getfixturevalue(which)(photo)
    assert faces.count.item() == 0


@pytest.mark.slow
@pytest.mark.shared
def test_faces_of_all_sizes(yunet, hopper):
    """As small pictures are enlarged, and large ones searched at several sizes."""
    whole = yunet(hopper).points[0, 0]
    for width, height in [(32, 38), (64, 75), (256, 300), (1024, 1200), (2048, 2400)]:
        mode = {"mode": "area"} if width < 512 else {"mode": "bicubic", "antialias": True}
        photo = torch.nn.functional.interpolate(hopper.float(), (height, width), **mode)
        faces = yunet(photo.clamp(0, 255).byte(), faces=2)
        assert faces.count.item() == 1, width
        apart = (faces.points[0, 0] * 512 / width - whole).norm(dim=-1)
        assert apart.max() < 13, width  # a fifteenth of the face


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("which", ["yunet", "mesh"])
def test_a_batch_is_its_photographs(request, which, hopper, astronaut):
    detector = request.getfixturevalue(which)
    grey = torch.full_like(astronaut, 90)
    photos = [hopper[:, :, :512], grey, astronaut]
    together = detector(torch.cat(photos), faces=2)
    for i, photo in enumerate(photos):
        alone = detector(photo, faces=2)
        for name in ("points", "boxes", "confidence", "count"):
            values = getattr(together, name)[i : i + 1]
            assert_close(values, getattr(alone, name), equal_nan=True, atol=1e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("which", ["yunet", "mesh"])
def test_uint8_and_float_photographs_are_one(request, which, astronaut):
    detector = request.getfixturevalue(which)
    assert_close(detector(astronaut / 255).points, detector(astronaut).points)
    assert detector(astronaut).points.device == astronaut.device


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("which", ["yunet", "mesh"])
def test_several_threads(request, which, astronaut):
    detector = request.getfixturevalue(which)
    expected, results = detector(astronaut).points, []
    threads = [
        threading.Thread(target=lambda: results.append(detector(astronaut).points))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    for points in results:
        assert_close(points, expected)


@pytest.mark.shared
def test_yunet_is_quiet_and_leaves_the_log_level(yunet, astronaut, capfd):
    import cv2

    level = cv2.utils.logging.getLogLevel()
    yunet(astronaut)
    assert cv2.utils.logging.getLogLevel() == level
    assert capfd.readouterr() == ("", "")


def test_faces_are_frozen():
    nothing = torch.full((1, 1, 4), torch.nan)
    faces = Faces(points=nothing, boxes=nothing, confidence=nothing, count=torch.tensor([0]))
    with pytest.raises(AttributeError):
        faces.count = nothing


@pytest.mark.slow
@pytest.mark.shared
def test_mediapipe_arms_no_profiling_timer(shared):
    pytest.importorskip("mediapipe")
    code = """
import sys, torch
from pathlib import Path
from camlens.faces import MediaPipe
MediaPipe(sys.argv[1])(torch.zeros(1, 3, 64, 64))
signals = [line for line in Path("/proc/self/status").read_text().splitlines()
           if line.startswith(("SigIgn", "SigCgt"))]
print([int(line.split()[1], 16) >> 26 & 1 for line in signals])  # SIGPROF is signal 27
"""
    model = str(shared / "models" / "face_landmarker.task")
    ran = subprocess.run(
        [sys.executable, "-c", code, model], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[0, 0]"

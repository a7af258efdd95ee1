"""One image file to a tensor, whatever it holds; and which files of a folder are images."""

import errno
import os
import resource
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from camlens.loading import find_photographs, photographs, read_photograph

LOSSLESS = {"webp": {"lossless": True}}


@pytest.fixture
def picture():
    """A (2, 3) picture with six colours, upright."""
    return np.array(
        [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [0, 255, 255], [10, 20, 30]]],
        dtype=np.uint8,
    )


def written(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def as_hwc(found):
    assert found.dtype == torch.uint8
    return found.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp"])
def test_rgb_is_read_as_it_is(tmp_path, picture, suffix):
    path = written(tmp_path / f"a.{suffix}", picture, **LOSSLESS.get(suffix, {}))
    assert (as_hwc(read_photograph(path)) == picture).all()


# What each EXIF orientation means: how the stored rows and columns become the upright picture.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_exif_orientation_is_applied(tmp_path, picture, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(
        tmp_path / f"a.{suffix}", picture, exif=exif.tobytes(), **LOSSLESS.get(suffix, {})
    )
    assert (as_hwc(read_photograph(path)) == TURNS[orientation](picture)).all()


def test_a_jpeg_taken_with_the_camera_on_its_side(tmp_path):
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:, :20] = 255  # the stored left is the upright top
    exif = Image.Exif()
    exif[0x0112] = 6
    found = as_hwc(read_photograph(written(tmp_path / "a.jpg", stored, exif=exif.tobytes())))
    assert found.shape == (60, 40, 3)
    assert found[5:10].min() > 240
    assert found[40:].max() < 15


def test_damaged_exif_counts_as_none(tmp_path, picture):
    path = written(tmp_path / "a.png", picture, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\x01\x12")
    assert (as_hwc(read_photograph(path)) == picture).all()


def test_cmyk(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    found = read_photograph(tmp_path / "a.jpg").float().mean(dim=(1, 2))
    assert torch.allclose(found, torch.tensor([255.0, 0, 0]), atol=3)


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, suffix):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    path = written(tmp_path / f"a.{suffix}", values)
    assert read_photograph(path)[1].tolist() == [[0, 1, 128, 255]]


def test_sixteen_bit_colour(tmp_path):
    # Pillow cannot write it, so by hand: one row, two pixels of 16-bit RGB.
    row = b"\0" + struct.pack(">6H", 0, 257, 65535, 32896, 514, 65535)

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    assert read_photograph(tmp_path / "a.png").permute(1, 2, 0).tolist() == [
        [[0, 1, 255], [128, 2, 255]]
    ]


def grey_tiff(path, values, *, white_is_zero=False, bits=None):
    """Write one row of grey pixels, in the byte order, width and sign of their type."""
    big = values.dtype.str[0] == ">"
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    data = values.tobytes()
    tags = {
        **{256: values.size, 257: 1, 258: bits or 8 * values.itemsize, 259: 1},
        **{262: 0 if white_is_zero else 1, 273: 8, 277: 1, 278: 1, 279: len(data), 339: kind},
    }
    order = ">" if big else "<"
    directory = struct.pack(f"{order}H", len(tags))
    for tag, value in tags.items():
        directory += struct.pack(f"{order}HHII", tag, 4, 1, value)
    data += b"\0" * (len(data) % 2)
    header = (b"MM" if big else b"II") + struct.pack(f"{order}HI", 42, 8 + len(data))
    path.write_bytes(header + data + directory + struct.pack(f"{order}I", 0))
    return path


# 32 bits and floats have no known range, whatever is in them; nor have signed values.
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"])
def test_grey_tiffs_of_every_kind(tmp_path, kind, order, white_is_zero):
    dtype = np.dtype(order + kind)
    if dtype.kind == "f":
        values = np.linspace(0, 1, 7)
    else:
        values = np.linspace(np.iinfo(dtype).min, np.iinfo(dtype).max, 7)
    path = grey_tiff(tmp_path / "a.tif", values.astype(dtype), white_is_zero=white_is_zero)
    if (kind, order, white_is_zero) == ("u2", ">", True):
        with pytest.raises(ValueError, match="a pixel format that Pillow cannot read"):
            read_photograph(path)
    elif kind in ("u1", "u2"):
        found = read_photograph(path)[0, 0].numpy().astype(int)
        expected = np.linspace(0, 255, 7)
        assert abs(found - (expected[::-1] if white_is_zero else expected)).max() <= 1
    else:
        with pytest.raises(ValueError, match=r"a\.tif (has|is not an image of a known format)"):
            read_photograph(path)


@pytest.mark.parametrize("kind", ["<i1", "<i2", ">i2", "<i4", ">i4"])
def test_signed_tiffs_are_refused_with_the_reason(tmp_path, kind):
    values = np.array([-1000, -100, 0, 40, 400, 3000]).clip(np.iinfo(kind).min, np.iinfo(kind).max)
    path = grey_tiff(tmp_path / "ct.tif", values.astype(kind))
    with pytest.raises(ValueError, match=r"ct\.tif has signed pixels, such as Hounsfield units"):
        read_photograph(path)


@pytest.mark.parametrize("compression", ["tiff_deflate", "tiff_lzw", "packbits"])
def test_compressed_white_is_zero(tmp_path, compression):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.tif", compression=compression, tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[262] == 0
    assert read_photograph(tmp_path / "a.tif")[1].tolist() == [[255, 254, 127, 0]]


@pytest.mark.parametrize("kind", ["<u4", "<f4", ">f4"])
def test_values_of_unknown_range_are_refused(tmp_path, kind):
    path = grey_tiff(tmp_path / "a.tiff", np.zeros(2, kind))
    with pytest.raises(ValueError, match=r"a\.tiff has 32-bit pixels .* scale them to 8 or 16"):
        read_photograph(path)


def test_palette_grey_and_bits(tmp_path, picture):
    Image.fromarray(picture).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    assert (as_hwc(read_photograph(tmp_path / "p.png")) == picture).all()
    path = written(tmp_path / "l.png", np.array([[0, 100, 255]], np.uint8))
    assert read_photograph(path).tolist() == [[[0, 100, 255]]] * 3
    path = written(tmp_path / "1.png", np.array([[True, False]]))
    assert read_photograph(path).tolist() == [[[255, 0]]] * 3


def test_what_is_transparent_is_laid_over_white(tmp_path):
    rgba = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [100, 0, 0, 51]]], np.uint8)
    path = written(tmp_path / "a.png", rgba)
    assert as_hwc(read_photograph(path)).tolist() == [
        [[200, 0, 0], [255, 255, 255], [224, 204, 204]]
    ]
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 40, 50, 60])
    palette.putdata([0, 1])
    palette.save(tmp_path / "b.png", transparency=1)
    assert as_hwc(read_photograph(tmp_path / "b.png")).tolist() == [[[1, 2, 3], [255, 255, 255]]]
    path = written(tmp_path / "c.png", np.array([[[0, 255], [0, 0]]], np.uint8))  # grey and alpha
    assert read_photograph(path)[0].tolist() == [[0, 255]]


def test_a_transparent_value_of_sixteen_bits(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    data = b"tRNS" + struct.pack(">H", 257)
    chunk = struct.pack(">I", 2) + data + struct.pack(">I", zlib.crc32(data))
    (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])  # after the header
    assert read_photograph(tmp_path / "a.png")[1].tolist() == [[0, 255, 128, 255]]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_of_an_animation_the_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (4, 4), (value, 0, 0)) for value in (200, 10, 20)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **LOSSLESS.get(suffix, {}))
    assert (as_hwc(read_photograph(path)) == [200, 0, 0]).all()


def bomb(path, width, height):
    """A PNG whose header promises a size; a few bytes."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data)
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


@pytest.mark.parametrize("size", [(10_001, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, size, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=r"boom\.png is rejected: .* pixels"):
        read_photograph(bomb(tmp_path / "boom.png", *size))


def test_the_limit_itself_is_decoded(tmp_path, picture, monkeypatch):
    monkeypatch.setattr(photographs, "MAX_PIXELS", 6)
    assert read_photograph(written(tmp_path / "a.png", picture)).shape == (3, 2, 3)
    with pytest.raises(ValueError, match=r"3 x 3 pixels exceed"):
        read_photograph(written(tmp_path / "b.png", np.zeros((3, 3, 3), np.uint8)))


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp", "tiff"])
def test_cut_off(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = written(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"a\.{suffix} is .*(get a complete copy|leave it out)"):
        read_photograph(path)


@pytest.mark.parametrize("step", ["PIL.ImageFile.ImageFile.load", "PIL.ImageOps.exif_transpose"])
@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "of the disk"), OSError(errno.ENOMEM, "full"), MemoryError()]
)
def test_what_the_machine_lacks_is_not_said_of_the_file(
    tmp_path, picture, monkeypatch, step, error
):
    def fail(*_, **__):
        raise error

    path = written(tmp_path / "a.png", picture)
    monkeypatch.setattr(step, fail)
    with pytest.raises(type(error)) as raised:
        read_photograph(path)
    assert raised.value is error


def test_too_many_open_files_are_not_said_of_the_file(tmp_path, picture):
    path = written(tmp_path / "a.png", picture)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files") as raised:
            read_photograph(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised.value.errno == errno.EMFILE


def test_a_seek_to_where_no_file_goes_is_said_of_the_file(tmp_path, picture, monkeypatch):
    path = written(tmp_path / "a.png", picture)

    def seek(_):
        with path.open("rb", buffering=0) as file:
            file.seek(-1)

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", seek)
    with pytest.raises(ValueError, match=r"damaged or truncated \(\[Errno 22\]"):
        read_photograph(path)


def test_what_is_no_image(tmp_path):
    (tmp_path / "text.jpg").write_text("not an image, whatever its name says")
    (tmp_path / "empty.png").touch()
    # A program would run for this one, if its decoder was tried.
    (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    os.mkfifo(tmp_path / "pipe.jpg")
    cases = {
        "text.jpg": (ValueError, "not an image of a known format"),
        "empty.png": (ValueError, r"empty \(0 bytes\)"),
        "a.eps": (ValueError, "not an image of a known format"),
        "pipe.jpg": (OSError, "is a pipe, socket or device"),
        "": (IsADirectoryError, "is a folder, expected an image file"),
        "absent.jpg": (FileNotFoundError, "there is no file .*absent.jpg: check its name"),
    }
    for name, (kind, message) in cases.items():
        with pytest.raises(kind, match=message):
            read_photograph(tmp_path / name)
    with pytest.raises(OSError, match="is a pipe, socket or device"):
        read_photograph("/dev/zero")


def test_find_photographs(tmp_path):
    root = tmp_path / "root"
    for name in (
        "b/2.jpg",
        "b/10.JPG",
        "a.png",
        "b.txt",
        ".hidden/a.jpg",
        "b/.a.jpg",
        "c/d/e.webp",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    (tmp_path / "secret.jpg").write_bytes(b"")
    (root / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "in.jpg").symlink_to(root / "a.png")
    (root / "dangling.jpg").symlink_to(root / "nothing.jpg")
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe.jpg")
    found = [str(path.relative_to(root)) for path in find_photographs(root)]
    assert found == ["a.png", "b/10.JPG", "b/2.jpg", "c/d/e.webp", "in.jpg"]


def test_find_says_what_is_wrong(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(NotADirectoryError, match=r"expected a folder .*a\.jpg is not a folder"):
        find_photographs(tmp_path / "a.jpg")
    with pytest.raises(NotADirectoryError, match="does not exist"):
        find_photographs(tmp_path / "absent")

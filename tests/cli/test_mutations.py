"""Mutated image files through ``camlens explain``: explained or listed, and nothing else."""

import io
import random

import numpy as np
import pytest
from PIL import Image

import camlens
from camlens import loading

FORMATS = {
    "jpg": {"quality": 90},
    "png": {},
    "gif": {},
    "bmp": {},
    "webp": {},
    "tiff": {"compression": "tiff_lzw"},
    "ppm": {},
    "jp2": {},
    "avif": {},
}
CALLS = 2


def originals():
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(24), np.arange(20))[..., None] * [3, 5, 4]
    picture = Image.fromarray((smooth + rng.integers(0, 40, (24, 20, 3))).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix, options in FORMATS.items():
        for mode in ("RGB", "L") if suffix in ("png", "jpg", "tiff") else ("RGB",):
            stream = io.BytesIO()
            extra = {"exif": exif.tobytes()} if suffix in ("jpg", "png", "webp") else {}
            kind = {"jpg": "JPEG", "jp2": "JPEG2000"}.get(suffix, suffix.upper())
            picture.convert(mode).save(stream, kind, **options, **extra)
            yield suffix, stream.getvalue()


def mutated(content, rng):
    """Flip, cut, repeat or drop a few bytes; every second time near the beginning."""
    data = bytearray(content)
    reach = 64 if rng.random() < 0.5 else len(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at = rng.randrange(min(reach, len(data)))
        change = rng.choice(["bit", "byte", "large", "cut", "drop", "insert", "repeat"])
        if change == "bit":
            data[at] ^= 1 << rng.randrange(8)
        elif change == "byte":
            data[at] = rng.randrange(256)
        elif change == "large":  # sizes and lengths
            data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
        elif change == "cut":
            del data[max(at, 1) :]
        elif change == "drop":
            del data[at : at + rng.randrange(1, 9)]
        elif change == "insert":
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            data[at:at] = data[at : at + 32]
        if not data:
            return b""
    return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("count", [72, pytest.param(300, marks=pytest.mark.exhaustive)])
def test_mutated_images_are_explained_or_listed(run, model, folder, count):
    rng, kinds = random.Random(5), list(originals())
    photos = []
    for index in range(count):
        suffix, content = kinds[index % len(kinds)]
        photos.append(folder / f"{index:03}.{suffix}")
        photos[-1].write_bytes(mutated(content, rng))
    explained = []
    for part in range(CALLS):
        some = photos[part::CALLS]
        got = run("explain", *some, *model, "--size", "16", "--out", "out", "--json")
        records, failed = got.json["photos"], got.json["failed"]
        assert got.code == bool(failed)
        assert {r["photo"] for r in records} | {r["photo"] for r in failed} == set(map(str, some))
        assert len(records) + len(failed) == len(some)
        assert all(r["photo"] in r["reason"] and len(r["reason"]) < 1000 for r in failed)
        assert "Traceback" not in got.err
        explained += records
    # Both happen often enough for the test to say something.
    assert count / 5 < len(explained) < count * 4 / 5
    written = {"out/report.html", "out/results.csv", "out/results.json", "out/run"}
    for record in explained:
        (explained_by,) = record["explanations"]
        (target,) = explained_by["targets"]
        with Image.open(target["files"]["overlay"]) as image:
            image.load()
            whole = loading.read_photograph(record["photo"])
            assert (image.height, image.width) == whole.shape[1:]
        file = explained_by["files"]["explanation"]
        assert camlens.Explanation.load(file).size == (16, 16)
        written |= {file, *target["files"].values(), *record["files"].values()}
    assert {str(path.relative_to(folder)) for path in (folder / "out").iterdir()} == written

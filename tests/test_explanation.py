"""The result: lazy heatmaps, indexing, moving, one file without pickle, whole or not at all."""

import copy
import dataclasses
import gc
import json
import os
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from camlens import Explanation, heatmap
from camlens.explanation_file import FORMAT
from camlens.registration import Registration, place

TENSORS = ("raw", "scores", "targets", "gradients", "outputs")


def made(grid=(2, 2), size=(4, 4), n=1, k=1, **fields):
    return Explanation(
        **{
            "raw": torch.rand(n, k, *grid),
            "scores": torch.rand(n, k),
            "targets": torch.zeros(n, k).long(),
            "size": size,
            "grid": grid,
            **fields,
        }
    )


def measured(size, grid, offset):
    stretched = Registration.stretched(size, grid, proven=True)
    error = tuple(0.0 for _ in size)
    return dataclasses.replace(stretched, kind="measured", offset=offset, offset_error=error)


@pytest.fixture
def explanation():
    raw = torch.rand(2, 3, 4, 5)
    raw[1, 2] = 0
    return Explanation(
        raw=raw,
        scores=torch.rand(2, 3),
        targets=torch.randint(0, 7, (2, 3)),
        size=(8, 10),
        grid=(4, 5),
        layers=("block1", "block2"),
        method="GradCAM",
        gradients=torch.randn(2, 3, 1, 8, 10),
        outputs=torch.randn(2, 7),
        measures={"standard_error": torch.rand(2, 3, 4, 5), "completeness_gap": torch.rand(2, 3)},
        registration=measured((8, 10), (4, 5), (0.5, -1.0)),
    )


def test_heatmaps_are_the_resized_maps_over_their_maximum(explanation):
    explanation = dataclasses.replace(explanation, registration=None)
    resized = torch.nn.functional.interpolate(explanation.raw, (8, 10), mode="bilinear")
    assert_close(explanation.heatmaps[0, 0], resized[0, 0] / resized[0, 0].max())
    assert explanation.heatmaps[1, 2].count_nonzero() == 0
    assert explanation.heatmaps.amax((-2, -1)).tolist() == [[1, 1, 1], [1, 1, 0]]
    assert explanation.evidence.tolist() == [[True, True, True], [True, True, False]]


def test_heatmaps_are_computed_once_and_only_on_request(explanation):
    assert "heatmaps" not in vars(explanation)
    assert explanation.heatmaps is explanation.heatmaps


def test_it_is_frozen(explanation):
    with pytest.raises(AttributeError):
        explanation.method = "other"


def test_save_and_load(explanation, tmp_path):
    explanation.save(tmp_path / "e.safetensors")
    loaded = Explanation.load(tmp_path / "e.safetensors")
    for name in (*TENSORS, "heatmaps"):
        assert torch.equal(getattr(loaded, name), getattr(explanation, name))
    for name in ("size", "grid", "layers", "method", "registration"):
        assert getattr(loaded, name) == getattr(explanation, name)
    assert loaded.measures.keys() == explanation.measures.keys()
    for name, measure in explanation.measures.items():
        assert torch.equal(loaded.measures[name], measure)
    assert os.listdir(tmp_path) == ["e.safetensors"]  # noqa: PTH208


def test_a_failed_save_leaves_the_old_file(explanation, tmp_path, monkeypatch):
    path = tmp_path / "e.safetensors"
    explanation.save(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        explanation.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["e.safetensors"]


def test_load_what_is_not_an_explanation(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError):
        Explanation.load(tmp_path / "missing")
    (tmp_path / "text").write_text("no tensors here, but long enough to look for a header")
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        Explanation.load(tmp_path / "text")
    save_file({"raw": torch.zeros(1)}, tmp_path / "weights")
    with pytest.raises(ValueError, match=r"format None, expected .* not written by Explanation"):
        Explanation.load(tmp_path / "weights")


def test_a_truncated_file(explanation, tmp_path):
    path = tmp_path / "e.safetensors"
    explanation.save(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        Explanation.load(path)


def test_moves_between_devices(explanation, device):
    there = explanation.to(device)
    assert {t.device.type for t in (there.raw, there.targets, there.gradients)} == {device.type}
    assert there.cpu().raw.device.type == "cpu"
    assert explanation.to("meta").heatmaps.shape == (2, 3, 8, 10)


def test_repr_says_what_is_explained(explanation):
    text = repr(explanation)
    assert "GradCAM at block1, block2: 2 images of (8, 10), 3 targets each, grid (4, 5)" in text
    assert ": 1 image of (4, 4), 1 target, grid (2, 2), on cpu)" in repr(
        made(scores=torch.ones(1, 1))
    )
    assert ": 1 image of (9,), 2 targets, grid (3,)" in repr(made((3,), (9,), k=2))


@pytest.mark.parametrize("size", [(8,), (8, 6), (4, 8, 6)])
def test_heatmaps_are_placed_where_they_are_registered(size):
    grid = tuple(pixels // 2 for pixels in size)
    registration = measured(size, grid, tuple(1.0 for _ in size))
    explanation = made(grid, size, n=2, k=3, registration=registration)
    placed = heatmap.scale(place(explanation.raw, registration))
    assert torch.equal(explanation.heatmaps, placed)
    assert not torch.allclose(placed, heatmap.scale(heatmap.resize(explanation.raw, size)))


def test_maps_at_pixel_resolution_stay_where_they_are():
    """Guided Grad-CAM: its cells are registered, its map has the image's size already."""
    raw = torch.rand(1, 1, 4, 4)
    explanation = made(raw=raw, registration=measured((4, 4), (2, 2), (1.0, 1.0)))
    assert torch.equal(explanation.heatmaps, heatmap.scale(raw))


def test_heatmaps_of_a_traced_explanation_are_differentiable():
    raw = torch.rand(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    for registration in (None, measured((4, 4), (2, 2), (0.5, -1.0))):
        assert torch.autograd.gradcheck(
            lambda raw, where=registration: made(k=2, raw=raw, registration=where).heatmaps, raw
        )
    explanation = made(k=2, raw=raw * 2)
    assert explanation.to("cpu")[0].heatmaps.requires_grad
    assert explanation.show() is not None


def test_traced_explanations_are_saved_without_the_graph(tmp_path):
    raw = torch.rand(1, 1, 2, 2, requires_grad=True)
    made(raw=raw * 2).save(tmp_path / "e")
    loaded = Explanation.load(tmp_path / "e")
    assert not loaded.raw.requires_grad
    assert_close(loaded.raw, raw.detach() * 2)


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, [0]),
        (-1, [3]),
        (np.int64(2), [2]),
        (torch.tensor(2), [2]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, 2), [0, 2]),
        ([3, 0, 3], [3, 0, 3]),
        (range(2), [0, 1]),
        (np.array([1, -1]), [1, 3]),
        (torch.tensor([2, 1]), [2, 1]),
        (torch.tensor([True, False, False, True]), [0, 3]),
        ([False, True, False, False], [1]),
        ([], []),
    ],
)
def test_indexing_takes_rows_of_every_field(index, rows):
    registration = measured((4, 4), (2, 2), (0.5, 0.5))
    whole = made(
        n=4, k=2, gradients=torch.rand(4, 2, 3, 4, 4), outputs=torch.rand(4, 7), layers=("a",),
        registration=registration, measures={"gap": torch.rand(4, 2)},
    )  # fmt: skip
    part = whole[index]
    assert len(part) == len(rows)
    for name in (*TENSORS, "heatmaps"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[rows])
    assert (part.size, part.grid, part.layers) == (whole.size, whole.grid, whole.layers)
    assert part.registration == registration
    assert torch.equal(part.measures["gap"], whole.measures["gap"][rows])


def test_iteration_gives_single_images():
    whole = made(n=3)
    assert len(whole) == 3
    assert [e.raw.shape for e in whole] == [(1, 1, 2, 2)] * 3
    assert torch.equal(torch.cat([e.scores for e in whole]), whole.scores)


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (3, IndexError, "indices from 0 to 2, got 3"),
        (-4, IndexError, "indices from 0 to 2, got -4"),
        (torch.tensor([0, 3]), IndexError, "indices from 0 to 2"),
        (torch.tensor([True]), IndexError, "a mask of 3 images, got one of 1"),
        ((0, 1), TypeError, r"explanation\.raw\[:, k\]"),
        (True, TypeError, "a slice, a sequence of indices or a mask, got True"),
        (1.0, TypeError, "got 1.0"),
        ("all", TypeError, "got 'all'"),
        (None, TypeError, "got None"),
        (torch.zeros(1, 1).long(), TypeError, "a sequence of indices"),
    ],
)
def test_bad_indices(index, error, message):
    with pytest.raises(error, match=message):
        made(n=3)[index]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"raw": torch.rand(2, 2)}, ValueError, r"raw as \(N, K, \*grid\)"),
        ({"raw": torch.rand(1, 1, 3, 3)}, ValueError, r"on the grid \(2, 2\) or \(4, 4\), got"),
        ({"raw": torch.ones(1, 1, 2, 2).long()}, TypeError, "raw in floating point"),
        ({"raw": None}, TypeError, "raw as a tensor, got NoneType"),
        ({"scores": torch.ones(3, 2)}, ValueError, r"scores as \(N, K\) = \(1, 1\)"),
        ({"targets": torch.zeros(1, 1)}, TypeError, "targets as int64"),
        ({"targets": torch.zeros(1).long()}, ValueError, "targets as"),
        ({"size": (4,)}, ValueError, "size and grid with 1 to 3 numbers"),
        ({"grid": (2, 2, 2)}, ValueError, "size and grid with 1 to 3 numbers"),
        ({"gradients": torch.rand(1, 1, 3, 4, 5)}, ValueError, "gradients as"),
        ({"outputs": torch.rand(2, 5)}, ValueError, "outputs with 1 rows, got"),
        ({"measures": {"gap": torch.rand(1, 2)}}, ValueError, r"measure gap as \(1, 1\) or"),
        ({"measures": {"gap": 3.0}}, TypeError, "the measure gap as a tensor, got 3.0"),
        ({"measures": {"gap": torch.ones(1, 1).long()}}, TypeError, "gap in floating point"),
        ({"measures": None}, TypeError, "measures by name, got None"),
        ({"registration": measured((4, 4), (4, 4), (0, 0))}, ValueError, "a registration of size"),
    ],
)
def test_fields_that_contradict_each_other(fields, error, message):
    with pytest.raises(error, match=message):
        made(**fields)


def test_scores_and_outputs_may_share_memory(tmp_path):
    outputs = torch.rand(2, 3)
    explanation = made(n=2, k=3, scores=outputs, outputs=outputs)
    explanation.save(tmp_path / "e")
    assert torch.equal(Explanation.load(tmp_path / "e").outputs, outputs)
    explanation[1].save(tmp_path / "e")
    assert torch.equal(Explanation.load(tmp_path / "e").scores, outputs[1:])


FACTS = {
    "size": [4, 4],
    "grid": [2, 2],
    "layers": ["x"],
    "method": "GradCAM",
    "registration": None,
    "format": FORMAT,
}
WHOLE = {
    "raw": torch.rand(1, 1, 2, 2),
    "scores": torch.ones(1, 1),
    "targets": torch.zeros(1, 1).long(),
    "gradients": torch.rand(1, 1, 1, 4, 4),
    "outputs": torch.rand(1, 5),
}
REGISTRATION = measured((4, 4), (2, 2), (0.5, 0.5)).to_dict()


def without(fields, name):
    return {key: value for key, value in fields.items() if key != name}


def damaged():
    """Return (name, tensors, header) of files that are no explanations."""
    headers = {
        "a list": "[1]",
        "null": "null",
        "a number": "3",
        "no JSON": "{",
        "many brackets": "[" * 100_000,
        "an old format": json.dumps({**FACTS, "format": "camlens.explanation.1"}),
        "one fact more": json.dumps({**FACTS, "more": 1}),
    }
    for name in FACTS:
        headers[f"no {name}"] = json.dumps(without(FACTS, name))
        if name != "registration":
            headers[f"{name} null"] = json.dumps({**FACTS, name: None})
        for value in (3, "ab", [], [0, 4], [-4, 4], [4.0, 4], [True, 4], [4] * 4, {}, [None]):
            if not (name == "layers" and value == []) and not (name == "method" and value == "ab"):
                headers[f"{name} {value}"] = json.dumps({**FACTS, name: value})
    headers["10^9 x 10^9"] = json.dumps({**FACTS, "size": [10**9, 10**9]})
    headers["registration 3"] = json.dumps({**FACTS, "registration": 3})
    for key, value in (
        ("size", [8, 8]),
        ("grid", [10**9, 10**9]),
        ("size", None),
        ("size", 4),
        ("grid", [2]),
        ("grid", [2.0, 2.0]),
        ("size", [4.0, 4.0]),
        ("pitch", None),
        ("pitch", ["a", "b"]),
        ("offset", [None, None]),
        ("offset", [float("nan"), 0.0]),
        ("receptive_field", "ab"),
        ("kind", "drawn"),
        ("more", 1),
    ):
        record = {**REGISTRATION, key: value}
        headers[f"registration {key} {value}"] = json.dumps({**FACTS, "registration": record})
    for name, header in headers.items():
        yield name, WHOLE, header
    for name, tensor in WHOLE.items():
        if name in ("raw", "scores", "targets"):
            yield f"{name} missing", without(WHOLE, name), json.dumps(FACTS)
        for kind, wrong in (
            ("type", tensor.float() if name == "targets" else tensor.long()),
            ("rows", tensor.repeat(2, *[1] * (tensor.ndim - 1))),
            ("axes", tensor.reshape(-1)[:0]),
        ):
            yield f"{name}: wrong {kind}", {**WHOLE, name: wrong}, json.dumps(FACTS)
    yield "raw of another grid", {**WHOLE, "raw": torch.rand(1, 1, 3, 3)}, json.dumps(FACTS)
    for value in (torch.nan, torch.inf):
        yield (
            f"raw of {value}",
            {**WHOLE, "raw": torch.full((1, 1, 2, 2), value)},
            json.dumps(FACTS),
        )
    concepts = {"maps": (1, 1, 2, 2), "directions": (1, 1, 3), "falls": (1, 1, 1)}
    for wrong in concepts:
        held = {
            f"concepts.{name}": torch.ones(shape).to(
                torch.int64 if name == wrong else torch.float32
            )
            for name, shape in concepts.items()
        }
        yield f"concepts of integers: {wrong}", {**WHOLE, **held}, json.dumps(FACTS)
    yield "an unknown tensor", {**WHOLE, "more": torch.ones(1)}, json.dumps(FACTS)
    yield "a tensor named size", {**WHOLE, "size": torch.ones(2)}, json.dumps(FACTS)


CASES = {name: (tensors, header) for name, tensors, header in damaged()}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_damaged_files_are_value_errors(name, tmp_path):
    from safetensors.torch import save_file

    tensors, header = CASES[name]
    path = tmp_path / "e.safetensors"
    save_file(tensors, path, metadata={"camlens": header})
    with pytest.raises(ValueError, match="is not an explanation that can be read") as caught:
        Explanation.load(path)
    assert len(str(caught.value)) < 600
    save_file(WHOLE, path, metadata={"camlens": json.dumps(FACTS)})
    assert Explanation.load(path).method == "GradCAM"


@pytest.mark.slow
def test_every_flipped_bit_and_every_truncation_is_a_value_error_or_another_value(tmp_path):
    path = tmp_path / "e.safetensors"
    made(registration=measured((4, 4), (2, 2), (0.5, 0.5)), layers=("a",)).save(path)
    content = path.read_bytes()
    for position in range(len(content)):
        for damage in (1, 64):
            flipped = bytearray(content)
            flipped[position] ^= damage
            path.write_bytes(flipped)
            try:
                Explanation.load(path)
            except ValueError as error:
                assert str(path) in str(error)  # noqa: PT017
        path.write_bytes(content[:position])
        with pytest.raises(ValueError, match="safetensors file"):
            Explanation.load(path)


@pytest.mark.slow
def test_images_are_referred_to_and_not_kept():
    images = torch.rand(3, 3, 4, 4)
    explanation = made(n=3, images=images)
    assert explanation._images.get(3) is not None
    assert torch.equal(explanation[1:]._images.get(2), images[1:])
    assert torch.equal(explanation[[2, 0]][0]._images.get(1), images[2:])
    assert torch.equal(explanation.to("cpu")._images.get(3), images)
    gone = weakref.ref(images)
    del images
    gc.collect()
    assert gone() is None
    assert explanation._images.get(3) is None
    assert explanation[0]._images.get(1) is None


def test_images_that_have_changed_are_not_drawn():
    images = torch.rand(3, 3, 4, 4)
    explanation = made(n=3, images=images)
    images[0, 0, 0, 0] = 2
    assert explanation._images.get(3) is None


def test_images_of_other_maps_are_not_drawn():
    """dataclasses.replace may reorder the rows: their images are then unknown."""
    images = torch.rand(3, 3, 4, 4)
    explanation = made(n=3, images=images)
    flipped = dataclasses.replace(explanation, raw=explanation.raw.flip(0))
    assert flipped._images.get(3) is None


def test_images_of_inference_mode_are_not_referred_to():
    """Torch does not count their changes, so that one could not tell them from other images."""
    with torch.inference_mode():
        images = torch.rand(1, 3, 4, 4)
    assert made(images=images)._images.get(1) is None


def test_explanations_are_copied_and_pickled_without_the_images():
    images = torch.rand(1, 3, 4, 4)
    explanation = made(images=images, registration=measured((4, 4), (2, 2), (0.5, 0.5)))
    for other in (pickle.loads(pickle.dumps(explanation)), copy.deepcopy(explanation)):
        assert torch.equal(other.raw, explanation.raw)
        assert other.registration == explanation.registration
        assert other._images.get(1) is None

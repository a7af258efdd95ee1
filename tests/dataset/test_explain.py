"""A run's tables hold what plain calls give, of every kind of data set and target."""

import contextvars
import dataclasses
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from errno import EIO, EMFILE, ENFILE, ENOENT, ENOSPC

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.data import IterableDataset, TensorDataset

from camlens import (
    DeepFeatureFactorization,
    GradCAM,
    LayerCAM,
    Saliency,
    faithfulness,
    heatmap,
    regions,
)
from camlens.dataset import Run, RunOptions, Sample, ShardTask, Unreadable, explain_dataset
from camlens.targets import box, segmentation, several

from .made import CORRUPT, HALVES, Noise, files, left_is_brighter, net, run


def stacked(dataset, indexes):
    return torch.stack([dataset[index].image for index in indexes])


READABLE = [i for i in range(20) if i != CORRUPT]


@pytest.mark.parametrize(
    "targets", [None, 2, "all", "label", left_is_brighter, [i % 3 for i in range(20)]]
)
def test_the_tables_are_what_plain_calls_give(tmp_path, targets):
    model, data = net(), Noise(20)
    explainers = [GradCAM(model, "1"), Saliency(model)]
    found = run(tmp_path, dataset=data, explainer=explainers, targets=targets, heatmaps="float16")
    labels = torch.tensor([i % 3 for i in READABLE])
    asked = labels if targets == "label" or isinstance(targets, list) else targets
    images = stacked(data, READABLE)
    for explainer in explainers:
        plain = explainer(images, targets=asked)
        rows = found.maps[found.maps["method"] == plain.method]
        n, k = plain.scores.shape
        assert rows["image"].tolist() == np.repeat(READABLE, k).tolist()
        assert rows["k"].tolist() == list(range(k)) * n
        assert rows["target"].tolist() == plain.targets.flatten().tolist()
        assert rows["evidence"].tolist() == plain.evidence.flatten().tolist()
        assert set(rows["grid"]) == {"x".join(map(str, plain.grid))}
        assert set(rows["layer"]) == {"+".join(plain.layers)}
        torch.testing.assert_close(torch.tensor(rows["score"].to_numpy()), plain.scores.flatten())
        heat = found.heatmaps(rows)
        torch.testing.assert_close(heat, plain.heatmaps.flatten(0, 1), rtol=0, atol=1e-3)
        outputs = model(images).detach()
        scored = regions.table(
            regions.score(plain, HALVES),
            labels=labels,
            predictions=outputs.argmax(1),
            images=READABLE,
        )
        own = found.regions[found.regions["method"] == plain.method].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, scored, rtol=1e-4, atol=1e-5)
    images = found.images[found.images["reason"].isna()]
    assert images["prediction"].tolist() == outputs.argmax(1).tolist()
    expected = outputs.softmax(1).amax(1).numpy()
    np.testing.assert_allclose(images["confidence"].to_numpy(), expected, rtol=1e-5)
    assert images["label"].tolist() == labels.tolist()


@pytest.mark.parametrize("batch_size", [4, 8])
def test_masks_boxes_and_several_classes_are_those_of_each_item(tmp_path, batch_size):
    """Whatever the batches are: as many items as a batch has images once took the first rows."""
    model, data = net(), Noise(8, corrupt=2)
    readable = [i for i in range(8) if i != 2]
    pixels, images = model[:2].eval(), stacked(data, readable)
    classes = [i % 3 for i in range(8)]
    masks = torch.eye(8).unsqueeze(1).expand(8, 7, 7 + 1)[..., :7].bool().clone()
    masks[7, 0, 0] = True
    for name, explainer, target in (
        ("masks", GradCAM(pixels, "0"), segmentation(1, masks)),
        ("classes", GradCAM(model, "1"), several(0, classes)),
    ):
        options = {"targets": target, "batch_size": batch_size, "regions": None}
        found = run(tmp_path / name, dataset=data, explainer=explainer, **options)
        one_by_one = [
            explainer(
                images[row : row + 1],
                targets=segmentation(1, masks[i]) if name == "masks" else [[0, classes[i]]],
            )
            for row, i in enumerate(readable)
        ]
        scores = torch.cat([one.scores.flatten() for one in one_by_one])
        torch.testing.assert_close(torch.tensor(found.maps["score"].to_numpy()), scores)


@pytest.mark.parametrize(
    "targets",
    [
        segmentation(1, torch.ones(4, 7, 7)),
        box(torch.tensor([[[0.0, 0, 1, 1]]] * 4), 1),
        several(None, [0, 1, 2, 0]),
    ],
)
def test_rows_of_another_number_of_items_are_refused(tmp_path, targets):
    with pytest.raises(ValueError, match=r"8 items|item of the data set, got"):
        run(tmp_path, dataset=Noise(8), targets=targets, batch_size=4)


def test_concepts_are_not_shared_by_batches(tmp_path):
    with pytest.raises(ValueError, match="each batch would have its own concepts"):
        run(tmp_path, explainer=DeepFeatureFactorization(net(), "1", shared=True))


def test_the_columns_and_their_types(tmp_path):
    found = run(tmp_path, 9)
    assert dict(found.images.dtypes.astype(str)) == {
        **{"image": "int64", "name": "string", "label": "Int64", "prediction": "Int64"},
        **{"confidence": "float32", "width": "Int32", "height": "Int32"},
        **{"thumbnail": "object", "outlines": "string", "reason": "string"},
    }
    assert dict(found.maps.dtypes.astype(str)) == {
        **{"image": "int64", "k": "int64", "method": "string", "layer": "string"},
        **{"grid": "string", "target": "int64", "score": "float32"},
        **{"probability": "float32", "evidence": "bool"},
        **{"heat": "object", "heat_height": "int32", "heat_width": "int32"},
    }
    assert found.images["image"].tolist() == list(range(9))
    assert found.images["name"][3] == "noise/3.png"
    assert (found.images["width"][3], found.images["height"][3]) == (16, 16)
    assert found.manifest["regions"] == ["left", "right"]
    assert found.manifest["methods"][0] == {
        "method": "GradCAM",
        "layers": ["1"],
        "options": {"create_graph": False, "fuse": "mean", "registration": "stretched"},
    }
    assert (found.manifest["images"], found.manifest["unreadable"]) == (9, 1)


def test_uint8_heat_is_the_map_in_256_steps(tmp_path):
    data = Noise(6, corrupt=None)
    found = run(tmp_path, dataset=data, targets=None)
    raw = GradCAM(net(), "1")(stacked(data, range(6))).raw
    heat = (heatmap.scale(raw) * 255).round().byte()
    assert list(found.maps["heat"]) == [one.numpy().tobytes() for one in heat]
    close = GradCAM(net(), "1")(stacked(data, range(6))).heatmaps.squeeze(1)
    assert (found.heatmaps(found.maps) - close).abs().max() <= 1.5 / 255


def test_what_cannot_be_read_is_listed_with_its_reason(tmp_path):
    found = run(tmp_path, 9)
    assert found.unreadable.to_dict("records") == [
        {"image": 5, "name": "5", "reason": "OSError: cannot read <object object>: it is cut off"}
    ]
    row = found.images.iloc[5]
    assert row.drop(["image", "name", "reason"]).isna().all()
    assert 5 not in set(found.maps["image"]) | set(found.regions["image"])


def test_values_that_are_not_finite_and_given_reasons_are_listed_too(tmp_path):
    fine = torch.rand(1, 16, 16)
    data = [fine, Sample(fine / 0 * 0, name="nan"), Unreadable("not yet there", "c"), (fine, 1)]
    found = run(tmp_path, dataset=data, regions=None)
    assert found.unreadable["name"].tolist() == ["nan", "c"]
    assert found.unreadable["reason"].tolist() == [
        "the image has values that are not finite",
        "not yet there",
    ]
    assert found.images["label"].tolist() == [pd.NA, pd.NA, pd.NA, 1]
    assert found.regions is None


def test_of_no_readable_image_the_tables_are_empty(tmp_path):
    found = run(tmp_path, dataset=[Unreadable("gone")] * 3)
    assert len(found.unreadable) == 3
    assert (len(found.maps), len(found.regions)) == (0, 0)
    assert "density" in found.regions.columns


def test_a_missing_library_is_no_unreadable_image(tmp_path):
    class Needs(Noise):
        def __getitem__(self, index):
            raise ImportError("no Pillow")

    with pytest.raises(ImportError, match="no Pillow"):
        run(tmp_path, dataset=Needs(3))


def test_a_misspelt_name_in_the_data_set_is_no_unreadable_image(tmp_path):
    class Misspelt(Noise):
        def __getitem__(self, index):
            return super().__getitem__(indx)

    with pytest.raises(NameError, match="indx"):
        run(tmp_path, dataset=Misspelt(3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [MemoryError(), *(OSError(one, os.strerror(one)) for one in (EMFILE, ENFILE, EIO, ENOSPC))],
)
def test_what_is_the_machines_fault_ends_the_run_and_is_tried_again(tmp_path, error):
    class Unlucky(Noise):
        def __getitem__(self, index):
            if index == 9:
                raise error
            return super().__getitem__(index)

    Unlucky.__name__ = "Noise"
    with pytest.raises(type(error)) as raised:
        run(tmp_path, dataset=Unlucky(12))
    assert raised.value.__notes__[-1].startswith("in item 9 of the data set")
    assert [path.name for path in tmp_path.glob("shard-*")] == ["shard-00000"]
    assert run(tmp_path, 12).unreadable["image"].tolist() == [5]


def test_a_file_that_is_missing_is_a_row(tmp_path):
    class Missing(Noise):
        def __getitem__(self, index):
            raise FileNotFoundError(ENOENT, "No such file", "a.png")

    assert len(run(tmp_path, dataset=Missing(3)).unreadable) == 3


def test_mixed_sizes_are_explained_a_size_at_a_time(tmp_path):
    data = Noise(12, sides=(16, 24), corrupt=None)
    found = run(tmp_path, dataset=data, targets=None)
    assert found.images["image"].tolist() == list(range(12))
    assert found.images["width"].tolist() == [16, 24] * 6
    assert found.maps["grid"].tolist() == ["7x7", "11x11"] * 6
    large = found.regions[found.regions["image"] % 2 == 1].reset_index(drop=True)
    plain = GradCAM(net(), "1")(stacked(data, range(1, 12, 2)))
    scores = regions.score(plain, HALVES.resize((24, 24)))
    np.testing.assert_allclose(large["share"], scores.share.flatten(), rtol=1e-4)
    with pytest.raises(ValueError, match="images of one size"):
        found.heatmaps(found.maps)
    torch.testing.assert_close(
        found.heatmaps(found.maps[1::2]), plain.heatmaps.squeeze(1), rtol=0, atol=6e-3
    )


def test_ablation_is_per_batch(tmp_path):
    data, model = Noise(6, corrupt=None), net()
    found = run(tmp_path, dataset=data, targets=None, infill="blur", batch_size=4, shard_size=6)
    for some in ([0, 1, 2, 3], [4, 5]):
        images = stacked(data, some)
        plain = GradCAM(model, "1")(images)
        ablation = faithfulness.ablate_regions(
            model, images, HALVES, targets=plain.targets, placements=4, seed=some[0]
        )
        rows = found.regions[found.regions["image"].isin(some)]
        np.testing.assert_allclose(rows["drop"], ablation.drop.flatten(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(
            rows["baseline"], ablation.baseline.flatten(), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(
            rows["standard_error"], ablation.standard_error.flatten(), rtol=1e-3, atol=1e-6
        )
        expected = regions.agreement(regions.score(plain, HALVES), ablation)
        assert expected.isnan().all()  # two regions have no order
        assert rows["agreement"].isna().all()


def test_the_number_of_placements(tmp_path):
    options = {"targets": None, "infill": "mean", "shard_size": 3}
    found = run(tmp_path, dataset=Noise(3, corrupt=None), placements=9, **options)
    images = stacked(Noise(3, corrupt=None), range(3))
    expected = faithfulness.ablate_regions(net(), images, HALVES, infill="mean", placements=9)
    np.testing.assert_allclose(
        found.regions["standard_error"], expected.standard_error.flatten(), rtol=1e-3, atol=1e-6
    )
    with pytest.raises(ValueError, match="expected placements as a whole number of at least 1"):
        run(tmp_path / "none", placements=0)
    run(tmp_path / "kept", dataset=Noise(3, corrupt=None), infill=None)
    run(tmp_path / "kept", dataset=Noise(3, corrupt=None), infill=None, placements=9)  # no effect


def test_the_notes_are_those_of_the_last_call(tmp_path):
    for notes in (["first", "second"], ["third"]):
        found = run(tmp_path / "run", dataset=Noise(3, corrupt=None), notes=notes)
        assert found.manifest["notes"] == notes
        assert found.manifest["complete"]
    for wrong in ("a sentence", 3):
        with pytest.raises(TypeError, match="expected notes as a list of sentences, got"):
            run(tmp_path / "none", notes=wrong)


def test_regions_may_be_found_on_the_pictures(tmp_path):
    def bright(pictures):
        assert (pictures >= 0).all()
        assert (pictures <= 1).all()
        return regions.Regions(["bright"], pictures > 0.5)

    data = Noise(5, corrupt=None)
    found = run(tmp_path, dataset=data, regions=bright)
    area = [(data[i].picture / 255 > 0.5).float().mean().item() for i in range(5)]
    np.testing.assert_allclose(found.regions["area"][::3], area, rtol=1e-6)
    assert found.manifest["regions"] == ["bright"]


def test_a_samples_own_regions(tmp_path):
    masks = torch.rand(4, 2, 16, 16).round()

    class Own(Noise):
        def __getitem__(self, index):
            names = ["left", "right"] if index < 3 else ["up", "down"]
            sample = super().__getitem__(index)
            return dataclasses.replace(sample, regions=regions.Regions(names, masks[index]))

    found = run(tmp_path / "own", dataset=Own(4), regions="own", targets=None)
    assert found.unreadable["reason"].tolist() == []
    explained = GradCAM(net(), "1")(stacked(Noise(4), range(4)))
    expected = regions.score(explained, regions.Regions(["a", "b"], masks))
    np.testing.assert_allclose(found.regions["area"], masks.mean((2, 3)).flatten(), rtol=1e-6)
    np.testing.assert_allclose(found.regions["share"], expected.share.flatten(), rtol=1e-4)
    assert found.regions["region"].tolist() == ["left", "right"] * 3 + ["up", "down"]
    small = Sample(torch.rand(1, 16, 16), regions=HALVES.resize((8, 8)))
    with pytest.raises(ValueError, match=r"size, \(16, 16\), got 1 of size \(8, 8\)"):
        run(tmp_path / "small", dataset=[small], regions="own")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda pictures: pictures, "return camlens.regions.Regions, got Tensor"),
        (lambda pictures: HALVES.resize((8, 8)), r"of size \(16, 16\), got 1 of size \(8, 8\)"),
    ],
)
def test_a_function_that_finds_no_regions_is_refused(tmp_path, wrong, match):
    with pytest.raises((TypeError, ValueError), match=match) as error:
        run(tmp_path, regions=wrong)
    assert "while explaining noise/0.png" in error.value.__notes__[0]


def test_classes_are_named(tmp_path):
    found = run(tmp_path, 4, classes=["a", "b", "c"], targets=None)
    assert found.regions["label"][::2].tolist() == ["a", "b", "c", "a"]
    assert found.manifest["classes"] == ["a", "b", "c"]


def test_without_classes_of_outputs_predictions_are_missing(tmp_path):
    model = torch.nn.Sequential(net()[:2]).eval()

    def mean(outputs):
        return outputs.mean(dim=(1, 2, 3))

    found = run(tmp_path, 4, explainer=GradCAM(model, "0.1"), targets=mean)
    assert found.images["prediction"].isna().all()
    assert found.images["confidence"].isna().all()
    assert set(found.maps["target"]) == {-1}
    assert found.maps["probability"].isna().all()


def test_the_probability_is_of_the_explained_class(tmp_path):
    model, data = net(), Noise(4)
    options = {"explainer": GradCAM(model, "1"), "dataset": data, "targets": [[2, 0]] * 4}
    found = run(tmp_path, **options)
    with torch.no_grad():
        expected = model(stacked(data, range(4))).softmax(1)
    values = torch.tensor(found.maps["probability"].to_numpy()).view(4, 2)
    torch.testing.assert_close(values, expected[:, [2, 0]])


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_confidence_is_of_the_activation(tmp_path, classes, activation):
    model = torch.nn.Sequential(*net()[:4], torch.nn.Linear(4, classes)).eval()
    data = Noise(4)
    options = {"explainer": GradCAM(model, "1"), "dataset": data, "infill": "mean"}
    found = run(tmp_path / "run", targets=None, activation=activation, **options)
    with torch.no_grad():
        outputs = model(stacked(data, range(4)))
    expected = {"softmax": outputs.softmax(1), "sigmoid": outputs.sigmoid(), "none": outputs}
    confidence = expected[activation].amax(1).numpy()
    known = classes > 1 or activation != "softmax"
    if known:
        np.testing.assert_allclose(found.images["confidence"], confidence, rtol=1e-4)
    else:
        assert found.images["confidence"].isna().all()
    for name in ("drop", "probability_drop", "probability_baseline", "probability_excess"):
        assert found.regions[name].notna().all() == (known or name == "drop")
    assert found.manifest["activation"] == activation
    with pytest.raises(ValueError, match="expected activation to be one of"):
        run(tmp_path / "other", activation="tanh", **options)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(tmp_path, workers):
    run(tmp_path / "plain")
    run(tmp_path / "other", num_workers=workers)
    assert files(tmp_path / "plain") == files(tmp_path / "other")


@pytest.fixture(params=[False, True], ids=["cpu", "accelerator"])
def beside(request, monkeypatch):
    """Run the model as on a CPU, and as beside an accelerator."""
    monkeypatch.setattr("camlens.dataset.threads.overlaps", lambda device: request.param)
    return request.param


def test_the_callers_thread_reads_and_another_may_run_the_model(tmp_path, beside):
    threads = {"items": set(), "regions": set(), "model": set()}

    class Seen(Noise):
        def __getitem__(self, index):
            threads["items"].add(threading.current_thread())
            return super().__getitem__(index)

    def regions_of(pictures):
        threads["regions"].add(threading.current_thread())
        return HALVES.resize(pictures.shape[-2:])

    def look(module, args, output):
        threads["model"].add(threading.current_thread())

    model = net()
    explainer = GradCAM(model, "1")
    model[1].register_forward_hook(look)
    run(tmp_path, explainer=explainer, dataset=Seen(40), regions=regions_of)
    assert threads["items"] == threads["regions"] == {threading.main_thread()}
    assert len(threads["model"]) == 1
    assert (threads["model"] != {threading.main_thread()}) == beside


def test_reading_and_explaining_overlap(tmp_path, monkeypatch):
    monkeypatch.setattr("camlens.dataset.threads.overlaps", lambda device: True)
    model, both = net(), threading.Barrier(2, timeout=60)

    class Waits(Noise):
        def __getitem__(self, index):
            if index == 3:  # of the second batch, while the first is explained
                both.wait()
            return super().__getitem__(index)

    def wait(module, args, output):
        if len(output) == 3 and not both.broken and not seen:
            seen.append(both.wait())

    seen = []
    explainer = GradCAM(model, "1")
    explainer(Noise(1)[0].image[None])  # the first call measures the layer
    model[1].register_forward_hook(wait)
    run(tmp_path, 6, explainer=explainer, dataset=Waits(6, corrupt=None))
    assert seen  # a broken barrier would have been an error


def test_the_model_runs_in_the_callers_modes(tmp_path, beside):
    model, seen = net(), set()
    variable = contextvars.ContextVar("variable", default="none")

    def look(module, args, output):
        seen.add((torch.get_num_threads(), output.dtype, variable.get()))

    look.fingerprint = lambda: "it only looks"
    explainer = GradCAM(model, "1")
    model[1].register_forward_hook(look)
    token = variable.set("the caller's")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            run(tmp_path, 16, explainer=explainer)
    finally:
        variable.reset(token)
    assert seen == {(torch.get_num_threads(), torch.bfloat16, "the caller's")}


def test_the_number_of_threads_is_left_alone(tmp_path):
    before = torch.get_num_threads()
    run(tmp_path, 9)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == before == torch.get_num_threads()


def test_a_caller_that_intercepts_functions_intercepts_the_models(tmp_path):
    class Count(TorchFunctionMode):
        calls = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            self.calls += function is torch.nn.functional.linear
            return function(*args, **(kwargs or {}))

    run(tmp_path / "plain", 9)
    with Count() as count:
        run(tmp_path / "counted", 9)
    assert count.calls >= 3  # one for each batch
    a, b = Run(tmp_path / "plain"), Run(tmp_path / "counted")
    pd.testing.assert_frame_equal(a.maps, b.maps)
    with pytest.raises(ValueError, match=r"modes.function_modes was null"), Count():
        run(tmp_path / "plain", 9)  # another mode may change numbers


def test_the_model_runs_in_inference_mode_too(tmp_path, beside):
    model = nn.Sequential(nn.ReLU(inplace=True), *net()).eval()
    run(tmp_path / "plain", 8, explainer=GradCAM(model, "2"), infill="mean")
    with torch.inference_mode():
        run(tmp_path / "inference", 8, explainer=GradCAM(model, "2"), infill="mean")
    assert files(tmp_path / "plain") == files(tmp_path / "inference")


def test_after_an_error_in_reading_what_was_read_is_kept(tmp_path, beside):
    class Ends(Noise):
        def __getitem__(self, index):
            if index == 17:
                raise OSError(EIO, "Input/output error")
            return super().__getitem__(index)

    def slow(outputs):
        time.sleep(0.03)
        return outputs[:, 0]

    with pytest.raises(OSError, match="Input/output"):
        run(tmp_path, dataset=Ends(40), targets=slow)
    assert {path.name for path in tmp_path.glob("shard-*")} == {"shard-00000", "shard-00001"}


def test_after_an_error_in_explaining_nothing_more_is_explained(tmp_path, beside):
    begun = []

    def fail(outputs):
        begun.append(len(outputs))
        time.sleep(0.1)
        if len(begun) > 2:  # the first ones measure the layer
            raise MemoryError
        return outputs[:, 0]

    with pytest.raises(MemoryError):
        run(tmp_path, dataset=Noise(40, corrupt=None), targets=fail)
    assert len(begun) <= 4  # of a dozen batches


def test_progress_is_told_behind_what_it_is_about(tmp_path):
    kept, told = [], []
    task = ShardTask(
        GradCAM(net(), "1"), Noise(12), tmp_path / "run", RunOptions(shard_size=4, batch_size=4)
    )
    task.start()

    def progress(images):
        told.append(images)
        kept.append(len(task.done()))

    task.run([0, 1, 2], progress=progress)
    assert told == [4, 4, 4]
    assert kept == [1, 2, 3]  # the shards that are there


def test_an_error_beside_others_names_the_images(tmp_path):
    def fail(outputs):
        raise ValueError("no score")

    with pytest.raises(ValueError, match="no score") as caught:
        run(tmp_path, targets=fail)
    assert "while explaining noise/0.png" in caught.value.__notes__[0]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([torch.rand(1, 16, 16)])


def test_a_tensor_data_set_will_do(tmp_path):
    images = torch.rand(3, 1, 16, 16)
    found = run(tmp_path, dataset=TensorDataset(images), targets=1, regions=None)
    plain = GradCAM(net(), "1")(images, targets=1)
    np.testing.assert_allclose(found.maps["score"], plain.scores.flatten(), rtol=1e-6)


@pytest.mark.slow
def test_the_random_state_and_the_model_are_left_alone(tmp_path):
    model = net()
    state, before = (
        torch.random.get_rng_state(),
        {k: v.clone() for k, v in model.state_dict().items()},
    )
    run(tmp_path, explainer=GradCAM(model, "1"), num_workers=1, infill="mean")
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_progress_is_shown_on_a_terminal_only(tmp_path, capsys, monkeypatch):
    run(tmp_path / "a", 9, progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run(tmp_path / "b", 9, progress=True)
    assert "9/9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"explainer": ()}, "expected an explainer"),
        ({"explainer": net()}, "expected an explainer, such as camlens.GradCAM"),
        ({"explainer": [GradCAM(net(), "1"), GradCAM(net(), "1")]}, "explainers of one model"),
        ({"dataset": "faces/"}, r"Folder\(path, transform\)"),
        ({"dataset": 7}, "map-style data set, with __getitem__ and __len__, got int"),
        ({"dataset": iter([])}, "map-style data set, with __getitem__ and __len__"),
        ({"dataset": {1: 2}.values()}, r"Pass list\(dataset\) if the items fit"),
        ({"dataset": []}, "the data set has no images"),
        ({"dataset": ["a"]}, "items as a tensor"),
        ({"dataset": [torch.rand(16, 16)]}, r"expected an image as \(C, H, W\)"),
        ({"dataset": [torch.zeros(1, 16, 16).byte()]}, "floating point as the model"),
        ({"dataset": Stream()}, r"got Stream: a run reads items by position"),
        ({"num_workers": -1}, "num_workers as a whole number of at least 0, got -1"),
        ({"regions": "face"}, r"Regions, as a function of pictures or as \"own\", got 'face'"),
        ({"regions": "own"}, "noise/0.png' has none"),
        ({"regions": None, "infill": "blur"}, "there are none: pass regions= too"),
        ({"infill": "black"}, "infill to be one of"),
        ({"targets": "best"}, '"label"'),
        ({"targets": [1, 2]}, r"expected targets as one class, \(40,\)"),
        ({"targets": 3}, "expected classes 0 to 2"),
        ({"batch_size": 0}, "batch_size as a whole number of at least 1, got 0"),
        ({"shard_size": 2.5}, "shard_size as a whole number of at least 1, got 2.5"),
        ({"heatmaps": "int4"}, "heatmaps as one of"),
        ({"part": (2, 2)}, r"0 <= rank < number, got \(2, 2\)"),
        ({"classes": ["a"]}, "a name for each of the model's 3 classes, got 1"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, options, match):
    with pytest.raises((TypeError, ValueError), match=match):
        run(tmp_path, **options)


def test_one_method_is_given_once(tmp_path):
    model = net()
    run(tmp_path, 3, explainer=[GradCAM(model, "1"), GradCAM(model, "0"), LayerCAM(model, "1")])
    with pytest.raises(ValueError, match="each method and layer once, got"):
        run(tmp_path, explainer=[GradCAM(model, "1"), GradCAM(model, "1")])


def test_a_model_in_training_mode_is_refused(tmp_path):
    model = net()
    explainer = GradCAM(model, "1")
    model.train()
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        run(tmp_path / "run", explainer=explainer)
    assert not (tmp_path / "run").exists()


def test_a_label_that_is_asked_for_must_be_known(tmp_path):
    with pytest.raises(ValueError, match="'0' has no label"):
        run(tmp_path, dataset=[torch.rand(1, 16, 16)], targets="label")


def test_the_layer_that_was_found_is_named_in_the_end(tmp_path):
    found = run(tmp_path, 3, explainer=GradCAM(net()))
    assert found.manifest["methods"] == [
        {
            "method": "GradCAM",
            "layers": ["1"],
            "options": {
                "create_graph": False,
                "fuse": "mean",
                "layer": "last",
                "registration": "stretched",
            },
        }
    ]
    assert run(tmp_path, 3, explainer=GradCAM(net())).manifest == found.manifest
    written = json.loads((tmp_path / "manifest.json").read_text())
    assert len(written.pop("sha256")) == 64
    assert written == found.manifest


def test_layers_that_were_found_are_each_explainers_own(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
        ).eval()
    for place, explainers in enumerate(
        [[GradCAM(model), GradCAM(model, "1")], [GradCAM(model, "1"), GradCAM(model)]]
    ):
        found = run(tmp_path / str(place), 3, explainer=explainers)
        layers = [one["layers"] for one in found.manifest["methods"]]
        assert layers == ([["3"], ["1"]] if place == 0 else [["1"], ["3"]])


@pytest.mark.slow
def test_scoring_a_few_at_a_time_changes_nothing(tmp_path, monkeypatch):
    plain = run(tmp_path / "plain")
    monkeypatch.setattr("camlens.dataset.image_results._SCORED_BYTES", 1)
    parts = run(tmp_path / "parts")
    pd.testing.assert_frame_equal(plain.regions, parts.regions, rtol=1e-5)


def test_explaining_by_position_only(tmp_path):
    found = explain_dataset(GradCAM(net(), "1"), Noise(3), tmp_path, progress=False)
    assert found.manifest["shards"] == ["shard-00000"]


def test_a_missing_library_is_told_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tqdm" else name)
    with pytest.raises(ImportError, match=r'needs tqdm: pip install "camlens\[data\]"'):
        run(tmp_path / "run")
    assert not (tmp_path / "run").exists()

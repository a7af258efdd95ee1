"""A run resumes only with the options it started with; nothing in a manifest is trusted."""

import json

import pytest
import torch

from camlens import GradCAM, HiResCAM, layouts
from camlens.dataset import Run
from camlens.dataset import manifest as manifests

from .made import HALVES, Noise, files, left_is_brighter, net, run


def changed(folder, **changes):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifests.write(folder, {**manifest, **changes})


def one(outputs):
    return outputs[:, 1]


def scaled(factor):
    return lambda outputs: outputs[:, 0] * factor


def with_gelu(model):
    model[1] = torch.nn.GELU().eval()
    return model


BASE = {"targets": one, "infill": None}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run over ten images, which a call that is refused leaves as it is."""
    folder = tmp_path_factory.mktemp("base")
    run(folder, 10, **BASE)
    return folder


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"explainer": GradCAM(net(1), "1")}, "a weight or a buffer of the model differs"),
        ({"explainer": GradCAM(with_gelu(net()), "1")}, "the code of the model's classes differs"),
        ({"explainer": HiResCAM(net(), "1")}, r'methods\[0\].method was "GradCAM" and is now "Hi'),
        ({"explainer": GradCAM(net(), "0")}, r'methods\[0\].layers\[0\] was "1" and is now "0"'),
        ({"explainer": GradCAM(net())}, r"methods\[0\]"),
        ({"explainer": GradCAM(net(), "1", layout=layouts.nchw)}, "options.layout"),
        ({"explainer": [GradCAM(net(), "1")] * 1 + [HiResCAM(net(), "1")]}, "of one model"),
        ({"targets": None}, 'targets was .* and is now "predicted"'),
        ({"targets": lambda outputs: outputs[:, 2]}, "the targets function differs"),
        ({"targets": scaled(2.0)}, "targets"),
        ({"regions": HALVES.pick("left")}, "the regions differ"),
        ({"regions": None}, "region_source"),
        ({"infill": "blur"}, 'infill was null and is now "blur"'),
        ({"activation": "sigmoid"}, 'activation was "softmax" and is now "sigmoid"'),
        ({"classes": ["a", "b", "c"]}, "classes was null"),
        ({"heatmaps": "float16"}, 'heatmaps was "uint8" and is now "float16"'),
        ({"batch_size": 4}, "batch_size was 3 and is now 4"),
        ({"shard_size": 4}, "shard_size was 8 and is now 4"),
        ({"picture": torch.sigmoid}, "picture was null"),
        ({"items": 12}, "dataset.items was 10 and is now 12"),
    ],
)
def test_another_run_into_the_same_folder_is_refused(base, options, what):
    before = files(base)
    with pytest.raises(ValueError, match=what):
        run(base, **{"items": 10, **BASE, **options})
    assert files(base) == before


def test_a_closed_over_value_counts(tmp_path):
    run(tmp_path, 3, targets=scaled(2.0))
    run(tmp_path, 3, targets=scaled(2.0))
    with pytest.raises(ValueError, match="targets function differs: its code or a value"):
        run(tmp_path, 3, targets=scaled(3.0))


def test_another_version_is_refused_but_for_pythons(tmp_path):
    run(tmp_path, 3)
    versions = Run(tmp_path).manifest["versions"]
    changed(tmp_path, versions={**versions, "python": "3.99"})
    run(tmp_path, 3)
    changed(tmp_path, versions={**versions, "torch": "1.0"})
    with pytest.raises(ValueError, match=r'versions.torch was "1.0" and is now'):
        run(tmp_path, 3)


def test_a_manifest_that_is_not_complete_is_gone_on_with(tmp_path):
    found = run(tmp_path, 3)
    whole = (tmp_path / "manifest.json").read_bytes()
    changed(tmp_path, complete=False, images=None, unreadable=None, shards=[])
    assert run(tmp_path, 3).manifest == found.manifest
    assert (tmp_path / "manifest.json").read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize("go_on", [Run, lambda folder: run(folder, 3)])
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": "camlens.run.2"}, "written by a newer camlens"),
        ({"format": "camlens.explanation.1"}, "it is not a run of camlens"),
        ({"format": None}, "it is not a run of camlens"),
        ({"shards": ["../elsewhere"]}, r"a shard '../elsewhere', expected names such as"),
        ({"shards": ["shard-00000/../../x"]}, "not safe to read"),
        ({"shards": ["/etc"]}, "not safe to read"),
        ({"shards": ["shard-00000\n"]}, "not safe to read"),
        ({"shards": [7]}, "not safe to read"),
        ({"shards": ["shard-00000", "shard-00000"]}, "names a shard twice"),
        ({"shards": []}, "names 0 shards of [0-9]+ items for 3 items"),
        ({"shards": "shard-00000"}, "'shards' is 'shard-00000'"),
        ({"complete": "yes"}, "'complete' is 'yes'"),
        ({"methods": None}, "'methods' is None"),
        ({"methods": ["GradCAM"]}, "'methods'"),
        ({"shard_size": 0}, "'shard_size' is 0"),
    ],
)
def test_a_manifest_is_not_trusted(tmp_path, go_on, changes, match):
    run(tmp_path, 3)
    changed(tmp_path, **changes)
    with pytest.raises(ValueError, match=match):
        go_on(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"format": "camlens.run.1"', b"\xff\xfe", b"[1]"])
def test_a_damaged_manifest_is_refused(tmp_path, content):
    run(tmp_path, 3)
    (tmp_path / "manifest.json").write_bytes(content)
    for call in (Run, lambda folder: run(folder, 3)):
        with pytest.raises(ValueError, match=r"manifest.json (is damaged|has format None)"):
            call(tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"photo")
    with pytest.raises(ValueError, match=r"is not empty \(holiday.jpg\) and contains no manifest"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
    with pytest.raises(FileNotFoundError, match="it is not the folder of a run"):
        Run(tmp_path)


def test_a_file_in_the_folders_place(tmp_path):
    (tmp_path / "run").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="is a file, expected a folder"):
        run(tmp_path / "run")
    with pytest.raises(NotADirectoryError):
        run(tmp_path / "run" / "below")


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refused(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("camlens.dataset.manifest.write_whole", refused)
    with pytest.raises(PermissionError, match="Permission denied"):
        run(tmp_path / "run")


def test_shards_of_a_longer_data_set_are_refused(tmp_path):
    run(tmp_path, 20, dataset=Noise(20))
    (tmp_path / "shard-00002").rename(tmp_path / "shard-00007")
    with pytest.raises(ValueError, match="contains shard-00007, but a data set of 20 items has 3"):
        run(tmp_path, 20, dataset=Noise(20))


def test_shards_of_other_images_are_refused(tmp_path):
    run(tmp_path, 20)
    (tmp_path / "shard-00001").rename(tmp_path / "x")
    (tmp_path / "shard-00002").rename(tmp_path / "shard-00001")
    (tmp_path / "x").rename(tmp_path / "shard-00002")
    with pytest.raises(ValueError, match=r"shard-00001.*the shard is number 2 and was renamed"):
        run(tmp_path, 20)


def test_targets_are_described_as_they_were_asked(tmp_path):
    for name, targets in {"a": None, "b": "all", "c": 1, "d": "label"}.items():
        found = run(tmp_path / name, 3, targets=targets).manifest["targets"]
        assert found == ("predicted" if targets is None else targets)
    found = run(tmp_path / "e", 3, targets=left_is_brighter).manifest["targets"]
    assert found["name"].endswith("made.left_is_brighter")

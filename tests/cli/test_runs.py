"""``camlens dataset``, ``report`` and ``compare``: a folder, a run, a page, two runs."""

import dataclasses
import re

import pandas
import pytest
import torch
import typer
from PIL import Image

import camlens
from camlens import regions
from camlens.cli import options, targets
from camlens.dataset import Run
from tests.cli.conftest import net


@pytest.fixture
def images(folder):
    """Twelve pictures in folders that are named as classes, and one in another."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (13, 24, 24, 3), dtype=torch.uint8, generator=generator)
    for index, picture in enumerate(pictures):
        place = folder / "images" / ("other" if index == 12 else ["happy", "sad"][index % 2])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.numpy()).save(place / f"{index:02}.png")
    return folder / "images"


@pytest.fixture
def words(model):
    return ("dataset", "images", *model, "--classes", "names.txt", "--regions", "template")


def test_a_folder_becomes_a_run(run, words, images, folder):
    how = ("--batch-size", "5", "--workers", "1", "--shard-size", "6")
    got = run(*words, "--out", "run", *how, "--heatmaps", "float16", "--json")
    assert got.code == 0, got.err
    assert got.json == {"run": "run", "images": 13, "unreadable": []}
    assert "the model has no class other" in got.err
    made = Run(folder / "run")
    assert made.shards == ["shard-00000", "shard-00001", "shard-00002"]
    assert made.manifest["heatmaps"] == "float16"
    assert made.images["name"].tolist()[:2] == ["happy/00.png", "happy/02.png"]
    assert made.images["label"].fillna(-1).tolist() == [1] * 6 + [-1] + [2] * 6
    pictures = torch.stack(
        [camlens.loading.read_photograph(images / name) for name in made.images["name"]]
    )
    expected = camlens.GradCAM(net().eval())(pictures / 255)
    assert made.maps["target"].tolist() == expected.targets[:, 0].tolist()
    assert made.maps["score"].tolist() == pytest.approx(expected.scores[:, 0].tolist(), abs=1e-5)
    table = regions.table(regions.score(expected, camlens.faces.face_template(24)))
    assert made.regions["density"].tolist() == pytest.approx(
        table["density"].tolist(), rel=1e-4, nan_ok=True
    )
    assert set(made.regions["target"]) <= {"angry", "happy", "sad", "calm", "surprised"}


def test_without_the_classes_names_there_are_no_labels(run, model, images, folder):
    got = run("dataset", "images", *model, "--out", "run")
    assert got.code == 0, got.err
    assert "no label: pass the class names with --classes FILE" in " ".join(got.err.split())
    assert Run(folder / "run").images["label"].isna().all()


def test_several_methods_and_targets(run, words, images, folder):
    more = ("--method", "GradCAM", "--method", "hirescam", "--target", "1", "--target", "sad")
    assert run(*words, *more, "--out", "run").code == 0
    made = Run(folder / "run")
    assert sorted(made.maps["method"].unique()) == ["GradCAM", "HiResCAM"]
    assert sorted(made.maps["target"].unique()) == [1, 2]
    assert len(made.maps) == 13 * 2 * 2


def test_unreadable_images_are_listed(run, words, images, folder):
    (images / "sad" / "cut.png").write_bytes((images / "sad" / "01.png").read_bytes()[:500])
    got = run(*words, "--out", "run", "--json")
    assert got.code == 1
    assert [row["name"] for row in got.json["unreadable"]] == ["sad/cut.png"]
    assert "sad/cut.png" in got.err
    assert "1 images could not be explained" in got.err
    assert got.json["images"] == 13


def test_thumbnails_are_not_read_to_count(run, words, images, monkeypatch):
    (images / "sad" / "cut.png").write_bytes(b"no")
    asked = []
    real = pandas.read_parquet

    def read_parquet(file, columns=None, **options):
        asked.append(columns)
        return real(file, columns=columns, **options)

    monkeypatch.setattr(pandas, "read_parquet", read_parquet)
    got = run(*words, "--out", "run", "--json")
    assert got.json["images"] == 13
    (row,) = got.json["unreadable"]
    assert (row["image"], row["name"]) == (13, "sad/cut.png")
    assert "not an image of a known format" in row["reason"]
    assert asked
    assert not any(columns is None or "thumbnail" in columns for columns in asked)


def test_an_image_that_the_model_cannot_take_is_listed(run, images):
    Image.new("RGB", (4, 4)).save(images / "sad" / "tiny.png")
    model = ("--model", "tests.cli.test_runs:not_small", "--classes", "names.txt")
    got = run("dataset", "images", *model, "--out", "run")
    assert got.code == 1
    flat = " ".join(got.err.split())
    assert re.search(r"sad/tiny\.png: cannot be explained: RuntimeError: ", flat), flat


def not_small():
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 5, 7), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 5)
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--regions", "none", "--infill", "blur"), "--infill removes regions, but there are none"),
        (("--heatmaps", "int8"), "expected --heatmaps as uint8 or float16, got 'int8'"),
        (("--infill", "gray"), "expected --infill as blur, mean, inpaint, got 'gray'"),
        (
            ("--layer", "1", "--method", "Saliency", "--method", "Deconvnet"),
            "--layer has no effect on Saliency, Deconvnet: leave it out",
        ),
    ],
)
def test_options_without_effect_are_refused(run, words, images, more, message):
    got = run(*words, *more, "--out", "run")
    assert got.code == 2
    assert message in " ".join(got.err.replace("\u2502", " ").split())
    assert not (images.parent / "run").exists()


def test_another_size_into_the_same_run_is_refused(run, words, images):
    assert run(*words, "--out", "run").code == 0
    assert run(*words, "--out", "run").code == 0
    got = run(*words, "--out", "run", "--mean", "0.5")
    assert got.code == 1
    assert "run" in got.err
    assert "Traceback" not in got.err


def test_an_empty_folder_and_none(run, model, folder):
    (folder / "empty").mkdir()
    for name, message in (("empty", "there are no image files"), ("absent", "does not exist")):
        got = run("dataset", name, *model, "--out", "run")
        assert got.code == 1
        assert message in got.err


def test_report(run, words, images, folder):
    run(*words, "--out", "run")
    got = run("report", "run")
    assert got.code == 0, got.err
    assert got.out == "run/report.html\n"
    assert "</html>" in (folder / "run" / "report.html").read_text()
    got = run("report", "run", "--out", "page.html", "--json")
    assert got.json == {"report": "page.html"}
    assert (folder / "page.html").is_file()
    got = run("report", "absent")
    assert got.code == 1
    assert "absent" in got.err


@pytest.mark.slow
def test_compare(run, words, images, folder):
    run(*words, "--out", "a", "--target", "1")
    run(*words, "--out", "b", "--target", "1", "--method", "HiResCAM")
    got = run("compare", "a", "b", "--json", "--value", "share")
    assert got.code == 0, got.err
    a, b = Run(folder / "a").regions, Run(folder / "b").regions
    expected = regions.compare(a, b, value="share")
    for name in ("n", "mean_a", "difference", "p"):
        found = [float("nan") if row[name] is None else row[name] for row in got.json["rows"]]
        assert found == pytest.approx(expected[name].tolist(), nan_ok=True)
    text = run("compare", "a", "b").out
    assert "density: a = a, b = b" in text
    assert "mean_a" in text
    assert "target (0: the first)" in text


@pytest.mark.slow
def test_what_cannot_be_compared(run, model, images, folder):
    run("dataset", "images", *model, "--out", "bare")
    run("dataset", "images/sad", *model, "--out", "other", "--regions", "template")
    run("dataset", "images", *model, "--out", "a", "--regions", "template")
    for pair, code, message in (
        (("bare", "bare"), 1, "bare has no regions to compare"),
        (("a", "other"), 1, "contain different images"),
        (("a", "absent"), 1, "absent"),
        (("a", "a", "--method", "LayerCAM"), 2, "has no method 'LayerCAM': choose from GradCAM"),
    ):
        got = run("compare", *pair)
        assert (got.code, message in got.err) == (code, True), got.err


def test_preprocessing_is_a_part_of_the_fingerprint(images):
    from camlens.cli.photographs import Photographs
    from camlens.loading import load_model

    loaded = load_model("tests.cli.conftest:net")
    other = dataclasses.replace(
        loaded, preprocessing=dataclasses.replace(loaded.preprocessing, mean=(0.5,))
    )
    first, same, changed = (
        Photographs.below(images, model, None).fingerprint() for model in (loaded, loaded, other)
    )
    assert first == same != changed


def test_a_rank_says_that_the_others_have_the_rest(run, words, images, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    got = run(*words, "--out", "run", "--shard-size", "4")
    assert got.code == 0, got.err
    assert "rank 0 of 2 has finished its shards" in got.out
    assert run(*words, "--out", "run", "--shard-size", "4", "--json").json["complete"] is False
    monkeypatch.setenv("RANK", "1")
    assert "images explained into run" in run(*words, "--out", "run", "--shard-size", "4").out


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_class_file_keeps_the_positions_of_names(tmp_path, encoding):
    path = tmp_path / "names.txt"
    path.write_text("cat\n\nbird \n\n", encoding=encoding)
    assert options.class_names(path) == ("cat", "1", "bird")


@pytest.mark.parametrize("content", [b"", b" \n\n", b"caf\xe9\n"])
def test_a_class_file_that_names_nothing_is_refused(tmp_path, content):
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(
        typer.BadParameter, match=r"names\.txt (contains no class names|is not UTF-8 text)"
    ):
        options.class_names(path)


def test_a_name_of_two_classes_is_refused(run, images):
    (images.parent / "names.txt").write_text("sad\nhappy\nsad\nx\ny\n")
    model = ("--model", "tests.cli.test_runs:not_small", "--classes", "names.txt")
    got = run("dataset", "images", *model, "--out", "run")
    assert got.code == 1
    assert "the classes [0, 2] are all named 'sad'" in " ".join(got.err.split())
    with pytest.raises(typer.BadParameter, match="2 classes are named 'SAD': use the number"):
        targets.read(["SAD"], ["sad", "happy", "sad"])

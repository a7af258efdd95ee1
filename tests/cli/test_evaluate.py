"""``camlens evaluate``: a folder to a table of methods by metrics, resumable, and its page."""

import json
import shutil

import pandas as pd
import pytest
import torch
from PIL import Image

import camlens
from camlens.cli.evaluation_tables import _verdict, show_evaluation
from camlens.dataset import Run, explain
from camlens.faithfulness import Evaluation, deletion, evaluate
from tests.cli.conftest import net
from tests.dataset.made import files


@pytest.fixture
def images(folder):
    """Seven pictures in folders that are named as classes."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (7, 16, 16, 3), dtype=torch.uint8, generator=generator)
    for index, picture in enumerate(pictures):
        place = folder / "images" / ["happy", "sad"][index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.numpy()).save(place / f"{index:02}.png")
    return folder / "images"


@pytest.fixture
def words(model):
    methods = ("--method", "GradCAM", "--method", "saliency")
    return ("evaluate", "images", *model, "--classes", "names.txt", *methods, "--shard-size", "3")


def flat(text):
    return " ".join(text.replace("\u2502", " ").split())


def read(images, names):
    return torch.stack([camlens.loading.read_photograph(images / n) / 255 for n in names])


def test_a_folder_becomes_a_table(run, words, images, folder):
    got = run(*words, "--out", "run", "--seed", "4", "--json")
    assert got.code == 0, got.err
    made = Run(folder / "run")
    assert got.json["images"] == 7
    model = net().eval()
    explainers = [camlens.GradCAM(model), camlens.Saliency(model)]
    expected = evaluate(explainers, model, read(images, made.images["name"]), seed=4).table
    for row, wanted in zip(got.json["table"], expected.to_dict("records"), strict=True):
        assert (row["method"], row["metric"]) == (wanted["method"], wanted["metric"])
        assert (row["best_floor"], row["clear"]) == (wanted["best_floor"], wanted["clear"])
        for name in ("mean", "low", "high", "above_floor", "above_low", "floor_random"):
            assert row[name] == pytest.approx(wanted[name], abs=1e-5), name
        assert "seconds" not in row


@pytest.mark.slow
def test_it_is_shown_best_first(run, words, images, folder):
    got = run(*words, "--out", "run", "--metric", "insertion", "--floor", "centre")
    assert got.code == 0, got.err
    assert "insertion, higher is better" in got.out
    assert "over the floor" in got.out
    assert "7 images evaluated into run; next: camlens report run" in got.out
    rows = [
        line.split()
        for line in got.out.splitlines()
        if line.split()[:1] in (["GradCAM"], ["Saliency"])
    ]
    assert [float(row[1]) for row in rows] == sorted((float(row[1]) for row in rows), reverse=True)
    assert all("centre" in row for row in rows)
    # Few images have no intervals, here as on the page.
    assert "interval" not in got.out
    assert "no intervals or verdicts for fewer than 10 images" in got.err
    for path in [p for p in images.rglob("*") if p.is_file()]:
        shutil.copy(path, path.with_name(f"again-{path.name}"))
    got = run(*words, "--out", "more", "--metric", "insertion", "--floor", "centre")
    assert "95% interval" in got.out
    assert "no intervals" not in got.err
    table = Run(folder / "more").evaluation.table.set_index("method")
    for line in got.out.splitlines():
        if line.split()[:1] in (["GradCAM"], ["Saliency"]):
            row = table.loc[line.split()[0]]
            verdict = "better" if row["clear"] else "worse" if row["above_high"] < 0 else "unclear"
            assert line.split()[-1] == verdict


def test_a_leader_that_hardly_depends_on_the_class_is_named(capsys):
    for method in ("EigenCAM", "GradCAM"):
        row = {"image": 0, "k": 0, "target": 0, "method": method, "metric": "insertion"}
        row |= {"better": "higher", "value": 0.5, "floor_random": 0.1, "curve": None}
        rows = pd.DataFrame([{**row, "curve_from": 0, "curve_to": 1}])
        show_evaluation(Evaluation.of_rows(rows))
        caveat = f"the maps of {method} hardly depend on the class"
        assert (caveat in flat(capsys.readouterr().err)) == (method == "EigenCAM")


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [
        ((0.1, 0.2), "better"),
        ((-0.1, 0.2), "unclear"),
        ((-0.2, -0.1), "worse"),
        ((None,) * 2, None),
    ],
)
def test_clearly_worse_is_not_the_same_as_unclear(bounds, verdict):
    assert _verdict(*bounds) == verdict


@pytest.mark.slow
def test_interrupted_and_repeated(run, words, images, folder, monkeypatch):
    assert run(*words, "--out", "whole").code == 0
    real, calls = explain.ShardTask.run, []

    def interrupted(self, numbers, **options):
        calls.append(list(numbers))
        if len(calls) == 1:
            real(self, numbers[:1], **options)
            raise OSError("the power went")
        real(self, numbers, **options)

    monkeypatch.setattr(explain.ShardTask, "run", interrupted)
    assert run(*words, "--out", "run").code == 1
    assert run("report", "run").code == 1  # incomplete
    assert run(*words, "--out", "run").code == 0
    assert calls == [[0, 1, 2], [1, 2]]
    assert files(folder / "run") == files(folder / "whole")
    got = run(*words, "--out", "run", "--seed", "1")
    assert got.code == 1
    assert "seed was 0 and is now 1" in flat(got.err)


def test_localization_takes_the_object_from_a_file(run, words, images, folder):
    (folder / "box.json").write_text(json.dumps({"object": [2, 2, 9, 12]}))
    metrics = ("--metric", "energy_pointing_game", "--regions", "box.json")
    got = run(*words, "--out", "run", *metrics, "--json")
    assert got.code == 0, got.err
    made = Run(folder / "run")
    heat = made.heatmaps(made.maps.query("method == 'Saliency'"))
    share = heat[:, 2:12, 2:9].sum(dim=(1, 2)) / heat.sum(dim=(1, 2))
    own = made.evaluation.values.query("method == 'Saliency'")["value"]
    assert own.tolist() == pytest.approx(share.tolist(), abs=0.01)  # heat is kept in 256 steps


@pytest.mark.slow
def test_image_files_are_evaluated_like_their_folder(run, words, images, folder):
    metric = ("--metric", "sparseness", "--json")
    whole = run(*words, "--out", "whole", *metric)
    files = sorted(images.rglob("*.png"))
    some = run("evaluate", *files, *words[2:], "--out", "some", *metric)
    assert some.code == 0, some.err
    assert some.json["table"] == whole.json["table"]
    one = run("evaluate", files[0], *words[2:], "--out", "one", *metric)
    assert [row["images"] for row in one.json["table"]] == [1, 1]
    notes = json.loads((folder / "one" / "manifest.json").read_text())["notes"]
    assert [note[:38] for note in notes] == ["the model's preprocessing is unknown, "]
    got = run("evaluate", files[0], images, *words[2:], "--out", "more", *metric)
    assert got.code == 2
    said = flat(got.err.replace("\u2502", " "))
    assert "expected one folder, or only image files, got 2 paths of which" in said
    got = run("evaluate", "absent", *words[2:], "--out", "more", *metric)
    assert "absent does not exist" in got.err
    got = run("evaluate", files[0], "absent.png", *words[2:], "--out", "more", *metric)
    assert "absent.png does not exist" in got.err
    twice = run("evaluate", files[0], files[0], *words[2:], "--out", "twice", *metric)
    assert twice.json["table"] == one.json["table"]


def mine(model, images, explanation, **options):
    return deletion(model, images, explanation, step=100, **options)


def test_a_metric_of_ones_own(run, words, images):
    own = ("--metric", "tests.cli.test_evaluate:mine", "--metric", "deletion", "--floor", "none")
    got = run(*words, "--out", "run", *own, "--json")
    assert got.code == 0, got.err
    assert [row["metric"] for row in got.json["table"]] == ["mine", "deletion"] * 2
    assert [row["best_floor"] for row in got.json["table"]] == [""] * 4


def test_unreadable_images_are_listed(run, words, images):
    (images / "sad" / "cut.png").write_bytes((images / "sad" / "01.png").read_bytes()[:200])
    got = run(*words, "--out", "run", "--metric", "sparseness", "--json")
    assert got.code == 1
    assert [row["name"] for row in got.json["unreadable"]] == ["sad/cut.png"]
    assert [row["images"] for row in got.json["table"]] == [7, 7]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        (("--metric", "insert"), (2, "unknown metric 'insert': did you mean 'insertion'?")),
        (("--metric", "road", "--metric", "road"), (2, "expected each --metric once")),
        (("--metric", "tests.cli.conftest:net"), (2, "as a function")),
        (("--metric", "pointing_game"), (2, "pointing_game needs the locations of the objects")),
        (("--method", "GradCAM", "--method", "grad-cam"), (2, "expected each --method once")),
        (("--seed", str(2**40 + 1)), (2, "expected --seed of at most 1099511627776")),
        (("--device", "meta"), (2, "'meta' is not available")),
        (("--activation", ""), (2, "an argument is empty")),
        (("--floor", "noise"), (2, "expected --floor as random")),
        (("--seed", "-1"), (2, "than or equal to 0")),
        (("--activation", "relu"), (2, "relu")),
        (("--target", "joy"), (2, "unknown class 'joy'")),
    ],
)
def test_usage_errors(run, words, images, more, wrong):
    code, error = wrong
    got = run(*words, "--out", "run", *more)
    assert got.code == code, got.err
    assert error in flat(got.err)
    assert not list(images.parent.glob("run/shard-*"))


def test_the_model_s_metric_error_names_the_metric_and_the_images(run, model, images):
    got = run("evaluate", "images", *model, "--out", "run", "--metric", "completeness")
    assert got.code == 1
    assert "completeness of GradCAM" in flat(got.err)
    assert "while explaining happy/00.png" in flat(got.err)

"""Runs that judge their maps: the numbers of ``evaluate``, byte for byte after an interruption."""

import errno
import functools

import numpy as np
import pytest

from camlens import GradCAM, Saliency, targets
from camlens.dataset import Run, RunOptions, ShardTask, shards
from camlens.faithfulness import deletion, evaluate, pointing_game

from .made import HALVES, Noise, asked, files, net, run

FLOORS = ("random", "centre")
METRICS = ("deletion", "insertion", "sparseness")
PLAIN = {"regions": None, "targets": None, "metrics": METRICS, "floors": FLOORS, "seed": 2}


def judged(out, items=12, **options):
    model = net()
    methods = [GradCAM(model, "1"), Saliency(model)]
    options = {"explainer": methods, "shard_size": 4, **PLAIN, **options}
    return run(out, items, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("judged") / "run"
    return judged(out), files(out)


def test_the_numbers_are_those_of_evaluate(whole):
    model = net()
    methods = [GradCAM(model, "1"), Saliency(model)]
    images = [Noise(12)[index] for index in range(5)]
    expected = evaluate(methods, model, images, metrics=METRICS, floors=FLOORS, seed=2).values
    own = whole[0].evaluation.values.query("image < 5")
    numbers = ["value", "floor_random", "floor_centre"]
    assert own.drop(columns=numbers).equals(expected.drop(columns=numbers))
    assert np.allclose(own[numbers], expected[numbers], atol=1e-6, equal_nan=True)


def test_images_behind_an_unreadable_one_keep_their_random_numbers(whole):
    values = whole[0].evaluation.values.query("metric == 'deletion' and method == 'GradCAM'")
    assert values["image"].tolist() == [*range(5), *range(6, 12)]
    model = net()
    for index in range(6, 12):
        image = Noise(12)[index].image[None]
        maps = GradCAM(model, "1")(image)
        expected = deletion(model, image, maps, floors=FLOORS, first=index, seed=2)
        own = values.query("image == @index")
        assert own["value"].item() == pytest.approx(expected.mean, abs=1e-6)
        floor = expected.floors["random"].mean
        assert own["floor_random"].item() == pytest.approx(floor, abs=1e-6)


def test_what_a_run_with_metrics_holds(whole):
    made, there = whole
    assert made.measured
    assert [name for name, _ in made.manifest["metrics"]] == list(METRICS)
    assert made.manifest["floors"] == list(FLOORS)
    assert set(there) == {
        "manifest.json",
        *(
            f"shard-0000{number}/{name}"
            for number in range(3)
            for name in ("checksums.json", "images.parquet", "maps.parquet", "values.parquet")
        ),
    }
    table = made.evaluation.table
    assert len(table) == 2 * len(METRICS)
    assert (table["images"] == 11).all()
    assert table["seconds"].isna().all()
    assert set(made.evaluation.curves["metric"]) == {"deletion", "insertion"}


@pytest.mark.slow
@pytest.mark.parametrize("call", [4, 9])
def test_an_interrupted_run_is_resumed(tmp_path, whole, monkeypatch, call):
    write, calls = shards._write_durably, iter(range(100))

    def full(path, content):
        if next(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(shards, "_write_durably", full)
    with pytest.raises(OSError, match="No space left"):
        judged(tmp_path)
    monkeypatch.undo()
    partial = Run(tmp_path, incomplete=True)
    assert 0 < len(partial.shards) < 3
    assert partial.evaluation.table["images"].max() < 11
    judged(tmp_path)
    assert files(tmp_path) == whole[1]


def test_other_metrics_are_another_run(tmp_path, whole):
    out = tmp_path / "run"
    judged(out, 4)
    for change in ({"metrics": ["deletion"]}, {"seed": 3}, {"floors": ()}):
        with pytest.raises(ValueError, match="contains a different run"):
            judged(out, 4, **change)
    swapped = {"metrics": {**dict.fromkeys(METRICS, "deletion")}}
    with pytest.raises(ValueError, match="contains a different run"):
        judged(out, 4, **swapped)
    assert judged(out, 4).evaluation.table.shape == whole[0].evaluation.table.shape


def test_a_run_without_metrics_is_as_before(tmp_path):
    assert not {"metrics", "floors", "seed"} & set(RunOptions().recorded())
    made = run(tmp_path, 4, regions=None)
    assert made.evaluation is None
    assert "metrics" not in made.manifest


def test_options_of_metrics_and_several_sizes(tmp_path):
    step = functools.partial(deletion, step=64)
    made = judged(
        tmp_path, 6, dataset=Noise(6, sides=(16, 12), corrupt=None), metrics={"fast": step}
    )
    values = made.evaluation.values
    model = net()
    for index in range(6):
        image = Noise(6, sides=(16, 12), corrupt=None)[index].image[None]
        expected = step(model, image, Saliency(model)(image), first=index, seed=2, floors=FLOORS)
        own = values.query("image == @index and method == 'Saliency'")
        assert own["value"].item() == pytest.approx(expected.mean, abs=1e-6)
        assert own["floor_random"].item() == pytest.approx(expected.floors["random"].mean, abs=1e-6)


def test_regions_are_where_the_objects_are(tmp_path):
    left = type(HALVES)(["left"], HALVES.masks[:, :1])
    made = judged(tmp_path, 4, regions=left, metrics=["pointing_game"])
    model = net()
    for index in range(4):
        image = Noise(4)[index].image[None]
        expected = pointing_game(None, image, Saliency(model)(image), left, floors=())
        own = made.evaluation.values.query("image == @index and method == 'Saliency'")
        assert own["value"].item() == expected.mean
    assert made.regions is not None


def test_an_image_that_a_metric_cannot_judge_is_listed(tmp_path):
    def picky(model, images, explanation, **options):
        if (images.mean(dim=(1, 2, 3)) > 0).any():
            raise ValueError("too bright")
        return deletion(model, images, explanation, **options)

    made = judged(tmp_path, 8, metrics={"picky": picky}, dataset=Noise(8, corrupt=None))
    bright = [i for i in range(8) if Noise(8, corrupt=None)[i].image.mean() > 0]
    assert 0 < len(bright) < 8
    assert made.unreadable["image"].tolist() == bright
    assert made.unreadable["reason"][0] == "cannot be explained: ValueError: too bright"
    assert set(made.evaluation.values["image"]) == set(range(8)) - set(bright)


def test_scores_of_a_callable_and_labels(tmp_path):
    made = judged(tmp_path / "a", 3, targets=targets.contrast(0, 1), metrics=["deletion"])
    assert set(made.evaluation.values["target"]) == {-1}
    made = judged(tmp_path / "b", 3, targets="label", metrics=["deletion"])
    assert made.evaluation.values.query("method == 'GradCAM'")["target"].tolist() == [0, 1, 2]


def test_a_shard_without_a_readable_image(tmp_path):
    made = judged(tmp_path, 6, shard_size=1, dataset=Noise(6), metrics=["deletion"])
    assert made.evaluation.table["images"].tolist() == [5, 5]
    assert np.isfinite(made.evaluation.table["mean"]).all()
    only = judged(tmp_path / "none", 1, dataset=Noise(1, corrupt=0), metrics=["deletion"])
    assert only.evaluation.table.empty
    assert only.evaluation.curves.empty


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"metrics": ["delet"]}, LookupError, "did you mean 'deletion'"),
        ({"metrics": "deletion"}, TypeError, "metrics as a list"),
        ({"metrics": ["pointing_game"]}, ValueError, "pass regions= too"),
        ({"metrics": ["deletion"], "floors": ["noise"]}, ValueError, "expected floors"),
        ({"metrics": ["deletion"], "seed": -1}, ValueError, "seed as a whole number"),
    ],
)
def test_bad_options(change, error, match):
    with pytest.raises(error, match=match):
        asked(**{"regions": None, **change})


def test_the_question_of_all_images_at_fault_ends_the_run(tmp_path):
    with pytest.raises(ValueError, match="signed attributions"):
        judged(tmp_path, 4, metrics=["completeness"])


def test_a_task_can_be_pickled(tmp_path):
    import pickle

    task = ShardTask(GradCAM(net(), "1"), Noise(4), tmp_path, asked(metrics=METRICS))
    again = pickle.loads(pickle.dumps(task))
    assert again.options.metrics == task.options.metrics

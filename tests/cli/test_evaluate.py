"""The command: the numbers of a direct call, resumed, listed errors, and its page."""

import json

import pytest

from camlens.dataset import read_evaluation


def words(model, *more):
    return (
        *("evaluate", ".", *model, "--method", "GradCAM", "--method", "Saliency", "--out", "run"),
        *("--metric", "deletion", "--metric", "sparseness", "--size", "48"),
        *more,
    )


def test_a_folder_is_evaluated_and_a_page_made(run, model, folder):
    done = run(*words(model))
    assert done.code == 0, done.err
    assert "deletion" in done.out
    found = read_evaluation(folder / "run")
    assert found.table["method"].tolist() == ["GradCAM", "Saliency"] * 2
    assert found.values["image"].nunique() == 2
    page = run("report", "run")
    assert page.code == 0, page.err
    text = (folder / "run" / "report.html").read_text()
    assert "Which method to trust here" in text
    assert "blurred_random" in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_the_document_has_the_table(run, model):
    done = run(*words(model, "--json"))
    rows = json.loads(done.out)["rows"]
    assert [(row["metric"], row["method"]) for row in rows] == [
        *[("deletion", "GradCAM"), ("deletion", "Saliency")],
        *[("sparseness", "GradCAM"), ("sparseness", "Saliency")],
    ]
    assert all(row["low"] <= row["mean"] <= row["high"] for row in rows)


def test_a_broken_photograph_is_listed_and_the_code_is_1(run, model, folder):
    (folder / "broken.png").write_bytes(b"no picture")
    done = run(*words(model))
    assert done.code == 1
    assert "broken.png" in done.err
    assert read_evaluation(folder / "run").values["image"].nunique() == 2


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--metric", "deletoin"), "deletion"),
        (("--regions", "template"), "FOLDER"),
        (("--activation", "tanh"), "softmax"),
        (("--method", "nothing"), "nothing"),
    ],
)
def test_usage_errors(run, model, more, text):
    done = run(*words(model, *more))
    assert done.code == 2
    assert text in done.err


def test_other_metrics_into_the_same_folder_are_refused(run, model):
    assert run(*words(model)).code == 0
    done = run(*words(model, "--metric", "complexity"))
    assert done.code == 1
    assert "metrics" in done.err

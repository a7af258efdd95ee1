"""Which method to trust: the page's words for what metrics found, beside the floors."""

import functools
import re

import numpy as np
import pandas as pd
import pytest

from camlens import GradCAM, Saliency
from camlens.dataset import RunOptions, explain_dataset
from camlens.faithfulness import Evaluation, deletion, insertion
from camlens.report import wording, write_report
from camlens.report.curves import HEIGHT, WIDTH, curves
from camlens.report.run_tables import load
from camlens.report.single_images import _says, single_images
from camlens.report.trust import BELOW, CLEAR, UNCLEAR, UNKNOWN, Judged, Value, trust
from tests.dataset.made import HALVES, Noise, net

from .made import seal

NOISE = np.random.default_rng(0).normal(0, 0.05, 40)


def made(means, floors=("random", "edges"), images=40, curve=None):
    """An evaluation: ``means[metric] = (better, {method: mean}, {floor: mean})``."""
    rows = []
    for metric, (better, methods, beside) in means.items():
        for method, mean in methods.items():
            for image in range(images):
                rows.append(
                    {"image": image, "k": 0, "target": 0, "method": method, "metric": metric}
                    | {"better": better, "value": mean + NOISE[image]}
                    | {f"floor_{name}": beside.get(name, np.nan) for name in floors}
                    | {"curve": curve and curve(method, image), "curve_from": 0, "curve_to": 1}
                )
    return Evaluation.of_rows(pd.DataFrame(rows))


@pytest.fixture(scope="module")
def judged():
    return made(
        {
            "insertion": (
                "higher",
                {"a": 0.9, "b": 0.895, "c": 0.5},
                {"random": 0.2, "edges": 0.5},
            ),
            "deletion": ("lower", {"a": 0.1, "b": 0.3, "c": 0.6}, {"random": 0.9, "edges": 0.3}),
        }
    )


def of(found, method):
    return next(verdict for verdict in found.verdicts if verdict.method == method)


def test_verdicts(judged):
    found = trust(judged)
    assert [verdict.method for verdict in found.verdicts] == ["a", "b", "c"]
    a, b, c = (of(found, method) for method in "abc")
    assert (a.above, a.unclear, a.below) == (("insertion", "deletion"), (), ())
    assert (a.best, a.overlaps, a.worse) == (("insertion", "deletion"), (), ())
    assert (b.above, b.unclear) == (("insertion",), ("deletion (edges)",))
    assert (b.overlaps, b.worse) == (("insertion",), ("deletion",))
    assert b.level == ()  # worse by the same on each image, though the intervals overlap
    assert (c.unclear, c.below) == (("insertion (edges)",), ("deletion (edges)",))
    assert found.summary == (
        "\u2068a\u2069 is above every floor on all 2 metrics. "
        "\u2068c\u2069 is above every floor on none of 2 metrics."
    )


def test_the_table_of_methods_and_floors(judged):
    found = trust(judged)
    assert [(metric.name, metric.better) for metric in found.metrics] == [
        ("insertion", "higher"),
        ("deletion", "lower"),
    ]
    table = judged.table.set_index(["method", "metric"])
    for row in found.methods:
        for metric, value in zip(found.metrics, row.values, strict=True):
            known = table.loc[(row.name, metric.name)]
            assert value.text == f"{known['mean']:.3f}"
            assert value.interval == f"{known['low']:.3f} to {known['high']:.3f}"
            assert value.above.endswith(" over edges")
            assert f"{known['above_low']:.3f} to " in value.above
    stands = {row.name: [value.stands for value in row.values] for row in found.methods}
    assert stands == {
        "a": ["clear", "clear"],
        "b": ["clear", "unclear"],
        "c": ["unclear", "below"],
    }
    floors = {row.name: [value.text for value in row.values] for row in found.floors}
    assert floors == {"random": ["0.200", "0.900"], "edges": ["0.500", "0.300"]}


def test_a_leader_that_hardly_depends_on_the_class_is_named():
    means = {"GuidedBackprop": 0.9, "GradCAM": 0.9}
    found = trust(made({"insertion": ("higher", means, {"random": 0.1, "edges": 0.2})}))
    caveat = "hardly depend on the class, so they do not say why it is this class."
    assert found.summary == (
        "\u2068GuidedBackprop\u2069 and \u2068GradCAM\u2069 are above every floor on the only "
        f"metric; the maps of GuidedBackprop {caveat}"
    )
    one = [Judged(name="EigenCAM at 1", values=judged_ones([CLEAR])[0].values)]
    assert _says(one).endswith(f"only metric; the maps of EigenCAM {caveat}")


def test_no_method_above_every_floor():
    found = trust(made({"insertion": ("higher", {"a": 0.1}, {"random": 0.5, "edges": 0.4})}))
    assert found.summary.startswith("No method is above every floor on the only metric.")


def test_few_images_have_no_verdict():
    found = trust(made({"insertion": ("higher", {"a": 0.9}, {"random": 0.1})}, images=9))
    assert (found.verdicts, found.summary) == ((), "")
    (value,) = found.methods[0].values
    assert (value.interval, value.stands) == ("", "unknown")
    assert re.fullmatch(r"\+0\.\d+ over random", value.above)


def test_a_metric_without_floors_decides_nothing():
    found = trust(
        made(
            {
                "insertion": ("higher", {"a": 0.9}, {"random": 0.1, "edges": 0.2}),
                "completeness": ("lower", {"a": 0.9}, {}),
            }
        )
    )
    assert found.summary == "\u2068a\u2069 is above every floor on the only metric."
    assert found.methods[0].values[1].above == ""
    assert [row.values[1] for row in found.floors] == [None, None]


def test_numbers_have_digits_enough_and_no_negative_zero():
    tiny = made({"infidelity": ("lower", {"a": 3e-5}, {"random": 4e-5})}, floors=("random",))
    tiny.table["mean"] = 3e-5
    metric = trust(tiny).metrics[0]
    assert metric.number(3.14159e-5) == "0.0000314"
    assert metric.number(-1e-12) == "0.0000000"
    assert metric.number(float("nan")) == "unknown"


def test_agreement_is_shaded():
    means = {
        "insertion": ("higher", {"a": 0.9, "b": 0.5, "c": 0.1}, {"random": 0.2}),
        "deletion": ("lower", {"a": 0.9, "b": 0.5, "c": 0.1}, {"random": 0.2}),
    }
    (_, first), (_, second) = trust(made(means, floors=("random",))).agreement
    assert [cell.text for cell in first + second] == ["+1.00", "-1.00", "-1.00", "+1.00"]
    assert [first[0].style, first[1].style] == ["shade-16", "shade-0"]
    assert trust(made({"insertion": means["insertion"]})).agreement == ()


def test_curves_are_drawn_to_scale():
    def straight(method, image):
        end = {"a": 0.0, "b": 0.5}[method]
        return np.linspace(1, end, 51).astype("<f4").tobytes()

    found = made({"deletion": ("lower", {"a": 0.5, "b": 0.75}, {})}, floors=(), curve=straight)
    (drawn,) = curves(found)
    assert (drawn.low, drawn.high, drawn.start, drawn.end) == ("0.00", "1.00", "0%", "100%")
    a, b = drawn.plots
    points = [tuple(map(float, point.split(","))) for point in a.line[1:].split(" ")]
    assert points[0] == (0, 0)
    assert points[25] == (WIDTH / 2, HEIGHT / 2)
    assert points[50] == (WIDTH, HEIGHT)
    assert b.line.endswith(f" {WIDTH:.1f},{HEIGHT / 2:.1f}")
    assert drawn.lines == a.line + b.line
    assert a.says == "from 1 to 0"
    assert a.band.endswith("Z")


def test_equal_curves_have_an_axis():
    flat = np.full(51, 0.25, dtype="<f4").tobytes()
    found = made(
        {"deletion": ("lower", {"a": 0.5}, {})}, floors=(), curve=lambda method, image: flat
    )
    (drawn,) = curves(found)
    assert f",{HEIGHT / 2:.1f}" in drawn.plots[0].line


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of twelve images, two methods and two metrics with curves."""
    model = net()
    metrics = [functools.partial(metric, step=32) for metric in (deletion, insertion)]
    return explain_dataset(
        [GradCAM(model, "1"), Saliency(model)],
        Noise(12, corrupt=None),
        tmp_path_factory.mktemp("judged") / "run",
        metrics=[*metrics, "sparseness"],
        regions=HALVES,
        shard_size=6,
        progress=False,
    )


@pytest.mark.slow
def test_the_page_of_a_run(run, tmp_path):
    page = write_report(run, tmp_path / "page.html").read_text()
    found = trust(run.evaluation)
    head, _, tables = page.partition("</header>")
    assert f'<p class="verdict">{found.summary}</p>' in head
    assert '<a href="#trust">Which method to trust here</a>' in head
    assert '<section id="trust"' in tables
    for row in found.methods:
        for value in row.values:
            assert f'<span class="value">{value.text}</span>' in page
    assert page.count('<path class="curve"') == 4
    assert '"evaluation.csv":"method,metric,better' in page
    assert "blurred random <small>floor</small>" in page


def test_a_run_without_metrics_has_no_such_section(tmp_path):
    plain = explain_dataset(GradCAM(net(), "1"), Noise(2), tmp_path / "run", progress=False)
    assert 'id="trust"' not in write_report(plain).read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.assign(better="more"), "neither higher nor lower"),
        (lambda t: t.assign(value="high"), "not numbers"),
        (lambda t: t.assign(curve=[b"abc"] * len(t)), "a curve does not have 204 bytes"),
        (lambda t: pd.concat([t, t]), "a value twice"),
        (lambda t: t.assign(image=t["image"] + 100), "values of images that"),
        (lambda t: t.drop(columns="metric"), "damaged"),
    ],
)
def test_a_changed_table_is_told(run, tmp_path, change, match):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(run.path, folder)
    path = folder / "shard-00000" / "values.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    seal(folder)
    with pytest.raises(ValueError, match=match):
        load(folder)


@pytest.mark.slow
def test_the_section_in_a_browser(run, browser, tmp_path):
    page = write_report(run, tmp_path / "page.html")
    browser.open(page)
    assert len(browser.texts(".verdicts tbody tr")) == 2
    assert len(browser.texts(".judged tbody tr")) == 2 + 5
    boxes = browser.run(
        "return [...document.querySelectorAll('.plots .curve, .plots .others')]"
        ".map((p) => p.getBoundingClientRect()).map((r) => [r.width, r.height])"
    )
    assert len(boxes) == 8
    assert all(width > 50 for width, _ in boxes)
    saved = browser.saved(tmp_path / "saved", "[data-file='evaluation.csv']")
    assert len(pd.read_csv(saved)) == 6
    for width in (1280, 360):
        browser.screen(width, 900)
        assert browser.run("return document.documentElement.scrollWidth") <= width


def test_few_images_are_judged_one_by_one(tmp_path):
    model = net()
    run = explain_dataset(
        [GradCAM(model, "1"), Saliency(model)],
        Noise(2, corrupt=None),
        tmp_path / "run",
        RunOptions(metrics=[insertion, deletion], floors=("random", "edges")),
        progress=False,
    )
    tables = load(run.path)
    found = single_images(tables)
    values = run.evaluation.values
    assert len(found) == 2
    for number, image in enumerate(found):
        here = values[values["image"] == number]
        target = here["target"].iloc[0]
        assert image.title.endswith(wording.name(tables.class_name(target)))
        for row in image.methods:
            for value, metric in zip(row.values, image.metrics, strict=True):
                of = (here["method"] == row.name) & (here["metric"] == metric.name)
                (own,) = here[of].to_dict("records")
                floors = own["floor_random"], own["floor_edges"]
                higher = metric.better == "higher"
                best = max(floors) if higher else min(floors)
                clear = own["value"] > best if higher else own["value"] < best
                assert value.text == metric.number(own["value"])
                assert (value.stands == CLEAR) == clear
                words = "better" if clear else "tie" if own["value"] == best else "worse"
                assert value.above.startswith(f"{words} ")
                assert metric.number(best) in value.above
    page = write_report(run, tmp_path / "page.html").read_text()
    assert page.count('<table class="grid single"') == 2
    assert page.count('<path class="curve"') == 4
    assert 'class="band"' not in page  # no interval of two images
    assert found[0].says in page


def test_images_enough_for_intervals_are_not_judged_one_by_one(run):
    assert single_images(load(run.path)) == ()


def judged_ones(*stands):
    """Methods a, b ... with a value that stands so for each metric."""
    return [
        Judged(
            name=name,
            values=tuple(Value(text="", interval="", above="", stands=one) for one in row),
        )
        for name, row in zip("abc", stands, strict=False)
    ]


@pytest.mark.parametrize(
    ("methods", "says"),
    [
        (judged_ones([CLEAR, CLEAR], [CLEAR, BELOW]), "A is above every floor on all 2 metrics."),
        (
            judged_ones([BELOW, CLEAR], [CLEAR, BELOW]),
            "No map is above every floor on all 2 metrics; A and B are on 1 metric.",
        ),
        (judged_ones([BELOW], [BELOW]), "No map is above every floor on any metric."),
        (judged_ones([CLEAR], [BELOW]), "A is above every floor on the only metric."),
        (judged_ones([UNKNOWN]), "No metric was compared with floors."),
        (judged_ones([UNCLEAR]), "No map is above every floor on any metric."),
    ],
)
def test_what_is_said_of_an_image(methods, says):
    for name in "ab":
        says = re.sub(rf"\b{name.upper()}\b", f"\u2068{name}\u2069", says)
    assert _says(methods) == says

import base64
import hashlib
import importlib.resources
import json
import re

import pytest
from matplotlib import colormaps

import camlens.report
from camlens.dataset import manifest as manifests
from camlens.report import page, palette, write_report

from .made import change_manifest, write_run


def test_json_in_a_script_has_no_mark_of_html():
    hostile = ["</script>", "<!--", "]]>", "&amp;", "\u2028\u2029", "\ud800", '"\\']
    text = str(page.embedded(hostile))
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == hostile


def test_numbers_that_json_lacks_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        page.embedded([float("nan")])


def test_the_policy_allows_the_pages_own_style_and_script_only(tmp_path):
    text = write_report(write_run(tmp_path / "run", images=3)).read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1].replace("&#39;", "'")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"


def test_nothing_points_out_of_the_page(tmp_path):
    text = write_report(write_run(tmp_path / "run", images=3)).read_text("utf-8")
    assert not re.findall(r"https?:|//cdn|@import|url\(", text)
    assert not re.findall(r'(?:src|href)="(?!#)', text)


def test_templates_and_static_files_are_in_the_package():
    files = importlib.resources.files("camlens.report")
    for name in ("templates/report.html.j2", "static/report.css", "static/report.js"):
        assert files.joinpath(name).is_file()


@pytest.mark.slow
def test_names_in_the_findings_are_escaped(tmp_path):
    classes = ("<script>alert(1)</script>", "<b>", "'\"&")
    text = write_report(write_run(tmp_path / "run", images=60, classes=classes)).read_text("utf-8")
    assert "<script>alert" not in text
    assert '"0":"\\u003cscript\\u003ealert(1)\\u003c/script\\u003e"' in text
    assert "&lt;b&gt;" in text  # in the table of regions


def test_the_page_is_beside_the_run_or_where_asked(tmp_path):
    run = write_run(tmp_path / "run", images=2)
    assert write_report(run) == run / "report.html"
    assert write_report(str(run), tmp_path / "other.html") == tmp_path / "other.html"
    assert (run / "report.html").read_bytes() == (tmp_path / "other.html").read_bytes()
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
def test_the_limit_is_kept_and_said(tmp_path):
    run = write_run(tmp_path / "run", images=30)
    text = write_report(run, limit=10).read_text("utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert len(data["images"]) == 10
    assert "The gallery shows 10 of 30 images" in text
    assert "<span>30 images</span>" in text
    assert "gallery shows" not in write_report(run, limit=30).read_text("utf-8")
    assert (
        json.loads(
            re.search(r'id="data">(.*?)</script>', write_report(run, limit=0).read_text("utf-8"))[1]
        )["images"]
        == []
    )
    with pytest.raises(ValueError, match="limit of at least 0"):
        write_report(run, limit=-1)


def test_unreadable_images_are_listed_with_reasons(tmp_path):
    run = write_run(tmp_path / "run", images=230, unreadable=tuple(range(5, 215)), scored=False)
    text = write_report(run).read_text("utf-8")
    assert "210 unreadable images" in text
    assert text.count("cannot identify image file") == page.MOST_UNREADABLE
    assert "The page lists the first 200" in text


def test_an_unfinished_run_is_refused_and_read_when_asked(tmp_path):
    run = write_run(tmp_path / "run", images=4)
    manifest = json.loads((run / "manifest.json").read_text())
    manifests.write(run, manifest | {"complete": False})
    with pytest.raises(ValueError, match="not complete"):
        write_report(run)
    part = camlens.dataset.Run(run, incomplete=True)
    assert "This run is not complete." in write_report(part).read_text("utf-8")
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "nothing")


def test_notes_of_the_run_are_above_the_images(tmp_path):
    run = write_run(tmp_path / "run", images=2)
    assert "Note:" not in write_report(run).read_text("utf-8")
    change_manifest(run, notes=["the weights are <random>", "no face was found"])
    head = write_report(run).read_text("utf-8").partition("</header>")[0]
    assert re.findall(r"Note:</strong> <bdi>(.*?)</bdi></p>", head) == [
        "the weights are &lt;random&gt;",
        "no face was found",
    ]
    change_manifest(run, notes=3)
    assert "Note:" not in write_report(run).read_text("utf-8")


def test_few_images_have_no_intervals_and_the_page_says_so(tmp_path):
    note = "There are no intervals for fewer than 10 images."
    counts = []
    for images in (9, 10):
        text = write_report(write_run(tmp_path / str(images), images=images)).read_text("utf-8")
        counts.append((text.count(note), text.count("±")))
    script = importlib.resources.files("camlens.report").joinpath("static/report.js")
    marks = script.read_text("utf-8").count("±")
    assert counts == [(2, marks), (0, marks)]  # beside both tables of regions


def test_links_under_the_title_lead_to_the_tables(tmp_path):
    heads = []
    for scored in (True, False):
        run = write_run(tmp_path / str(scored), images=3, scored=scored, ablated=scored, empty=(1,))
        text = write_report(run).read_text("utf-8")
        heads.append(re.findall(r'<a href="#(\w+)">', text.partition("</header>")[0]))
        assert all(text.count(f'<section id="{name}"') == 1 for name in heads[-1])
    assert heads == [["findings", "density", "effect"], ["findings"]]


def test_the_colour_bar_has_the_heats_colours():
    (stops,) = re.findall(r"\.colors .*\((to right, .*)\)", palette.stylesheet())
    ends = [[round(255 * part) for part in colormaps["turbo"](at)[:3]] for at in (0.0, 1.0)]
    assert [stops.split(", ")[at] for at in (1, -1)] == [f"#{bytes(end).hex()}" for end in ends]


def test_a_damaged_table_is_named(tmp_path):
    run = write_run(tmp_path / "run", images=4)
    (run / "shard-00000" / "maps.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"maps\.parquet is damaged"):
        write_report(run)


def test_shades_are_symmetric_and_each_has_a_rule():
    for factor in (1.1, 1.5, 2, 3, 4, 100):
        assert palette.step(factor) == -palette.step(1 / factor)
    assert (palette.step(0.0), palette.step(4.0)) == (-8, 8)
    assert palette.step(0.0, strongest=0.0, ratio=False) == 0
    style = palette.stylesheet()
    assert [style.count(f".shade-{i} ") for i in range(17)] == [2] * 17


@pytest.mark.slow
def test_a_file_that_is_no_page_is_not_replaced(tmp_path):
    run, other = write_run(tmp_path / "run", images=2), write_run(tmp_path / "other", images=2)
    before = (other / "manifest.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"manifest\.json is not a page of a report"):
        write_report(run, other / "manifest.json")
    assert (other / "manifest.json").read_bytes() == before
    page = write_report(run, tmp_path / "page.html")
    assert write_report(run, page) == page
    assert "SHA-256 of the model" in page.read_text("utf-8")

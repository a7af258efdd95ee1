"""The page in a real Chromium: what a user sees and does."""

import base64
import csv
import dataclasses
import io
import json
import re
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from camlens.faces import face_template
from camlens.report import palette, write_report
from camlens.report.run_tables import load

from .made import SIDE, Made, change_manifest, seal, write_run

pytestmark = pytest.mark.slow

HOSTILE = [
    "<script>window.taken = 1</script>.png",
    "</script><script>window.taken = 2</script>",
    '"><img src=x onerror="window.taken = 3">.png',
    "'; window.taken = 4; //",
    "<!-- <script>",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "&lt;b&gt; &amp; \u2028\u2029 \\u003c",
    "\u202egnp.exe \u05e9\u05dc\u05d5\u05dd",
    "x" * 300,
    "javascript:window.taken=5",
    "tab\t new\nline \x01\x1b\x7f",
    "x" * 10_000,
    "=HYPERLINK(1)",
]


def names_where(tables, condition, order="image", ascending=True):
    rows = tables.images[condition] if condition is not None else tables.images
    return rows.sort_values(order, ascending=ascending, kind="stable")["name"].tolist()


#: The name of the card that has the focus.
ACTIVE = "document.activeElement.querySelector('.file')?.textContent"


class TestFilters:
    def test_at_first_all_are_shown_in_order(self, browser, usual):
        browser.open(usual[1])
        assert browser.names() == names_where(load(usual[0]), None)
        assert browser.text("#count") == "All 59 images"

    def test_label_prediction_and_right_or_wrong(self, browser, usual):
        tables = load(usual[0])
        images = tables.images
        browser.open(usual[1])
        browser.choose("label", "1")
        assert browser.names() == names_where(tables, images["label"] == 1)
        browser.choose("prediction", "2")
        both = (images["label"] == 1) & (images["prediction"] == 2)
        assert browser.names() == names_where(tables, both)
        browser.choose("label", "")
        browser.choose("prediction", "")
        browser.choose("correct", "false")
        assert browser.names() == names_where(tables, ~images["correct"].astype(bool))
        wrong = (~images["correct"].astype(bool)).sum()
        assert browser.text("#count") == f"{wrong} of 59 images"

    def test_confusion_pairs_are_counted(self, browser, usual):
        tables = load(usual[0])
        wrong = tables.images[~tables.images["correct"].astype(bool)]
        pairs = wrong.groupby(["label", "prediction"]).size()
        browser.open(usual[1])
        classes = Made().classes
        assert {k: v for k, v in browser.options("pair").items() if k} == {
            f"{a}>{b}": f"{classes[a]} mistaken for {classes[b]} ({n})"
            for (a, b), n in pairs.items()
        }
        (a, b) = pairs.idxmax()
        browser.choose("pair", f"{a}>{b}")
        assert len(browser.names()) == pairs.max()

    def test_densest_region_follows_method_and_target(self, browser, usual):
        tables = load(usual[0])
        browser.open(usual[1])
        table = tables.regions
        for method, place in (("GradCAM", "0"), ("LayerCAM", "1")):
            browser.choose("setting", place)
            browser.choose("target", "k2")
            rows = table[(table["method"] == method) & (table["k"] == 2)].dropna(subset="density")
            top = rows.loc[rows.groupby("image")["density"].idxmax()].set_index("image")["region"]
            eyes = tables.images["image"].map(top) == "eyes"
            at = tables.region_names.index("eyes")
            browser.choose("region", str(at))
            assert browser.names() == names_where(tables, eyes)

    def test_search_is_of_names_and_ignores_case(self, browser, usual):
        browser.open(usual[1])
        browser.choose("search", "FOLDER/0001")
        browser.until("return document.querySelectorAll('#cards li').length === 10")
        assert browser.names() == [f"folder/{i:05d}.png" for i in range(10, 20)]

    def test_nothing_found_says_so_and_show_all_brings_all_back(self, browser, usual):
        browser.open(usual[1])
        browser.choose("search", "no such name")
        browser.until("return document.querySelectorAll('#cards li').length === 0")
        assert browser.text("#count").startswith("None of 59 images matches")
        browser.run("document.getElementById('reset').click()")
        browser.until("return document.querySelectorAll('#cards li').length === 24")
        assert len(browser.names()) == 59
        assert browser.text("#count") == "All 59 images"

    def test_sorting(self, browser, usual):
        tables = load(usual[0])
        browser.open(usual[1])
        browser.choose("sort", "unsure")
        assert browser.names() == names_where(tables, None, "confidence")
        browser.choose("sort", "sure")
        assert browser.names() == names_where(tables, None, "confidence", ascending=False)
        shown = tables.regions[tables.regions["shown"] & (tables.regions["method"] == "GradCAM")]
        for order, column, region, ascending in (
            ("density:3", "density", tables.region_names[3], False),
            ("disagreement", "agreement", tables.region_names[0], True),
        ):
            browser.choose("sort", order)
            rows = shown[shown["region"] == region].set_index("image")[column]
            values = tables.images.set_index("name")["image"].map(rows)[browser.names()]
            known = values.dropna().to_numpy()
            steps = np.diff(known) if ascending else -np.diff(known)
            assert (steps >= -1e-3).all()  # the page's numbers have four digits
            assert values.isna().to_numpy()[len(known) :].all()  # those without a number are last


HEAT = "[...document.querySelectorAll('#cards li:first-child .heat')].map((image) => image.src)"


class TestCards:
    def test_methods_stand_beside_the_photograph(self, browser, usual):
        browser.open(usual[1]).gallery()
        heat = browser.run(f"return {HEAT}")
        assert len(set(heat)) == 2
        boxes = browser.run(
            "return [...document.querySelectorAll('#cards li:first-child .picture')]"
            ".map((p) => { const b = p.getBoundingClientRect(); return [b.x, b.y, b.width]; })"
        )
        (x, y, width), second, third = boxes
        assert x + width < second[0] < second[0] + width < third[0]
        assert [y, y] == [second[1], third[1]]
        said = browser.texts("#cards li:first-child .tile-name")
        assert said[0] == "photograph"
        assert [one.split(" · ")[0] for one in said[1:]] == ["GradCAM", "LayerCAM"]
        assert browser.texts("#shown-methods > span") == [
            f"{method}: features.9, grid 12x12" for method in ("GradCAM", "LayerCAM")
        ]
        browser.choose("setting", "1")
        assert browser.texts("#shown-methods > span") == ["LayerCAM: features.9, grid 12x12"]
        browser.choose("target", "all")
        browser.until("return document.querySelectorAll('#cards .tile-name').length > 3")
        classes = [one.split(" · ")[0] for one in browser.texts("#cards li:first-child .tile-name")]
        maps = load(usual[0]).maps
        first = maps[(maps["image"] == 0) & (maps["method"] == "LayerCAM")]
        assert classes[1:] == [
            f"{name} {round(100 * share)}%"
            for name, share in zip(Made().classes, first["probability"], strict=True)
        ]

    def test_two_photographs_fill_the_first_screen(self, browser, tmp_path):
        methods = ("GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM")
        page = write_report(write_run(tmp_path / "run", images=2, methods=methods))
        browser.screen(1280, 800)
        browser.open(page).gallery()
        boxes = browser.run(
            "return [...document.querySelectorAll('#cards .picture')]"
            ".map((p) => { const b = p.getBoundingClientRect(); return [b.bottom, b.width]; })"
        )
        assert len(boxes) == 10
        assert max(bottom for bottom, _ in boxes) < 800
        assert min(width for _, width in boxes) > 200

    def test_right_and_wrong_are_said_and_what_the_heat_explains(self, browser, usual):
        tables = load(usual[0])
        images = tables.images.set_index("name")
        maps = tables.maps[tables.maps["method"] == "GradCAM"]
        ids = tables.images.set_index("image")["name"][maps["image"]]
        shares = [
            "over 99%" if share > 0.995 else f"{round(100 * share)}%"
            for share in maps["probability"]
        ]
        percents = dict(zip(zip(ids, maps["target"], strict=True), shares, strict=True))
        browser.open(usual[1])
        names = browser.names()
        said = browser.texts("#cards .said")
        explained = browser.run(
            "return [...document.querySelectorAll('#cards .caption')]"
            ".map((c) => c.querySelector('.explained')?.textContent ?? null)"
        )
        for name, line, heat in zip(names, said, explained, strict=True):
            row = images.loc[name]
            label, prediction = (tables.class_name(row[c]) for c in ("label", "prediction"))
            sign = "✓ right" if row["correct"] else "✗ wrong"
            sure = row["confidence"] > 0.995
            percent = "over 99" if sure else round(100 * row["confidence"])
            assert line == f"{sign}: true: {label}predicted: {prediction} {percent}%"
            wrong = f"heat explains: {prediction} {percents[name, row['prediction']]} (predicted)"
            assert heat == (None if row["correct"] else wrong)
        assert (~images["correct"]).sum() > 3
        browser.choose("target", "label")
        wrong = [i for i, name in enumerate(names) if not images.loc[name, "correct"]]
        lines = browser.texts("#cards .explained")
        true = [(names[i], images.loc[names[i], "label"]) for i in wrong]
        assert lines == [
            f"heat explains: {tables.class_name(one)} {percents[name, one]} (true)"
            for name, one in true
        ]

    def test_the_slider_sets_the_heats_opacity(self, browser, usual):
        browser.open(usual[1]).gallery()
        heat = "return getComputedStyle(document.querySelector('#cards .heat')).opacity"
        assert browser.run(heat) == "0.5"
        slider = browser.driver.find_element("id", "opacity")
        slider.send_keys("\ue011")  # Home
        assert browser.run(heat) == "0"
        slider.send_keys("\ue010")  # End
        assert browser.run(heat) == "1"
        assert slider.get_attribute("aria-valuetext") == "100% heat"

    def test_method_and_target_change_the_pictures(self, browser, usual):
        browser.open(usual[1]).gallery()
        assert browser.options("target") == {
            **{"prediction": "predicted class", "label": "true class"},
            **{"k0": "angry", "k1": "happy", "k2": "sad", "all": "all classes"},
        }
        browser.choose("setting", "1")
        one = {}
        for value in ("k0", "k1", "k2"):
            browser.choose("target", value)
            (one[value],) = browser.until(f"const found = {HEAT}; return found.length && found")
        browser.choose("target", "all")
        assert browser.until(f"const found = {HEAT}; return found.length && found") == [
            *one.values()
        ]
        assert len(set(one.values())) == 3
        browser.choose("setting", "")
        assert len(browser.until(f"const found = {HEAT}; return found.length && found")) == 6

    def test_outlines_of_the_regions_lie_over_the_pictures(self, browser, usual, tmp_path):
        browser.open(usual[1]).gallery()
        regions = ["brows", "eyes", "nose", "mouth", "cheeks", "forehead", "chin"]
        assert browser.texts("#key bdi") == regions  # the background has no outline of its own
        first = "document.querySelector('#cards .picture')"
        drawn = f"const [box, svg] = [{first}, {first}.querySelector('.outlines')];"
        assert browser.run(f"{drawn} return [...svg.querySelectorAll('title')].length") == 7
        # The mouth of the template, in shares of the picture.
        mouth = browser.run(
            f"{drawn} const [a, b] = [box, svg.querySelectorAll('path')[7]]"
            ".map((one) => one.getBoundingClientRect());"
            "return [(b.left - a.left) / a.width, (b.top - a.top) / a.height,"
            "b.width / a.width, b.height / a.height]"
        )
        mask = face_template(SIDE).pick("mouth").masks[0, 0] > 0.5
        (top, left), (bottom, right) = (
            (edge / SIDE).tolist() for edge in mask.nonzero().aminmax(dim=0)
        )
        sizes = [left, top, right + 1 / SIDE - left, bottom + 1 / SIDE - top]
        assert mouth == pytest.approx(sizes, abs=0.03)
        picture = browser.saved(tmp_path / "saved", "#cards li:first-child .tool")
        colors = {tuple(c) for c in np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)}
        assert {tuple(bytes.fromhex(line[1:])) for line in palette.lines()[:7]} <= colors
        assert browser.run(f"{drawn} return getComputedStyle(svg).display") == "block"
        browser.run("document.getElementById('outlines').click()")
        assert browser.run(f"{drawn} return getComputedStyle(svg).display") == "none"

    def test_a_map_without_evidence_is_not_coloured(self, browser, usual):
        browser.open(usual[1])
        browser.choose("search", "00003")
        browser.until("return document.querySelectorAll('#cards li').length === 1")
        browser.gallery()
        said = browser.texts("#cards .tile-name")
        assert said == ["photograph", "GradCAM · no evidence", "LayerCAM · no evidence"]
        assert browser.run(f"return {HEAT}") == []

    def test_at_first_some_are_shown_and_only_what_is_near_is_drawn(self, browser, usual):
        browser.screen(400, 500)
        browser.open(usual[1])
        assert browser.run("return document.querySelectorAll('#cards li').length") == 24
        assert browser.text("#count") == "First 24 of 59 images"
        assert browser.text("#more") == "Show all 59 images"
        assert len(browser.names()) == 59
        browser.run("scrollTo(0, 0)")
        drawn = "return document.querySelectorAll('#cards .heat').length"
        browser.until(drawn)
        assert 0 < browser.run(drawn) < 40

    def test_files_are_linked_where_they_are(self, browser, tmp_path):
        name = "folder/<b> & 'x' #1?.png"
        run = write_run(tmp_path / "run", images=3, names={1: name})
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
        for root, there in ((tmp_path, True), (tmp_path / "elsewhere", False)):
            change_manifest(run, root=str(root))
            browser.open(write_report(run, tmp_path / "page.html"))
            links = []
            for place in range(3):
                browser.run("document.querySelectorAll('.card')[arguments[0]].click()", place)
                links += browser.run(
                    "return [...document.querySelectorAll('#record .original')].map((a) => a.href)"
                )
                browser.press("ESCAPE")
            assert links == ([(tmp_path / name).as_uri()] if there else [])


class TestKeyboard:
    def active(self, browser):
        return browser.run(f"return {ACTIVE}")

    def test_arrows_move_and_one_card_is_a_stop(self, browser, usual):
        browser.open(usual[1])
        names = browser.names()
        browser.choose("size", 80)
        columns = browser.run("return columnsShown()")
        assert columns > 2
        browser.run("document.querySelector('.card').focus()")
        for key, expected in [
            *(("ARROW_RIGHT", 1), ("ARROW_RIGHT", 2), ("ARROW_DOWN", 2 + columns)),
            *(("ARROW_LEFT", 1 + columns), ("ARROW_UP", 1), ("ARROW_UP", 1), ("HOME", 0)),
            *(("ARROW_LEFT", 0), ("END", len(names) - 1), ("ARROW_RIGHT", len(names) - 1)),
        ]:
            browser.press(key)
            assert self.active(browser) == names[expected], key
        assert browser.run("return document.querySelectorAll('.card[tabindex=\"0\"]').length") == 1

    def test_enter_opens_escape_closes_and_focus_returns(self, browser, usual):
        browser.open(usual[1])
        names = browser.names()
        browser.run("document.querySelector('.card').focus()")
        browser.press("ARROW_RIGHT", "ENTER")
        assert browser.run("return document.getElementById('record').open")
        assert browser.text("#record-title") == names[1]
        browser.press("ESCAPE")
        assert not browser.run("return document.getElementById('record').open")
        assert self.active(browser) == names[1]

    def test_next_and_previous_follow_the_gallery(self, browser, usual):
        browser.open(usual[1])
        browser.choose("sort", "unsure")
        names = browser.names()
        browser.run("document.querySelector('.card').click()")
        press = "document.querySelector('[data-turn=\"{}\"]').click()"
        assert browser.run("return document.querySelector('[data-turn=\"-1\"]').disabled")
        browser.run(press.format(1))
        browser.run(press.format(1))
        assert browser.text("#record-title") == names[2]
        browser.run(press.format(-1))
        browser.press("ESCAPE")
        # The browser first returns the focus to the card that opened the record.
        browser.until(f"return {ACTIVE} === {json.dumps(names[1])}")

    def test_the_skip_link_comes_first(self, browser, usual):
        browser.open(usual[1])
        browser.press("TAB")
        assert browser.run("return document.activeElement.className") == "skip"
        assert browser.run("return document.activeElement.getBoundingClientRect().width") > 50


class TestRecord:
    def open(self, browser, page, index=0):
        browser.open(page)
        browser.run("document.querySelectorAll('.card')[arguments[0]].click()", index)

    def test_it_has_all_numbers_of_the_image(self, browser, usual):
        tables = load(usual[0])
        self.open(browser, usual[1], 4)
        name = browser.text("#record-title")
        image = tables.images[tables.images["name"] == name].iloc[0]
        rows = browser.run(
            "return [...document.querySelectorAll('#record table')].map((t) =>"
            "[...t.tBodies[0].rows].map((r) => [...r.cells].map((c) => c.textContent)))"
        )
        maps = tables.maps[tables.maps["image"] == image["image"]]
        maps = maps.sort_values(["method", "k"])
        assert len(rows[0]) == len(maps) == 6
        assert [r[1] for r in rows[0]] == maps["method"].tolist()
        assert np.allclose([float(r[2]) for r in rows[0]], maps["score"], atol=1e-3)
        marked = [r[0].removesuffix(" (predicted)") for r in rows[0] if "(predicted)" in r[0]]
        assert marked == [tables.class_name(image["prediction"])] * 2
        regions = tables.regions
        own = regions[
            (regions["image"] == image["image"])
            & regions["shown"]
            & (regions["method"] == "GradCAM")
        ]
        assert [r[0] for r in rows[1]] == own["region"].tolist()
        assert np.allclose([float(r[1]) for r in rows[1]], own["density"], atol=0.006)
        shares = [float(r[2].rstrip("%")) / 100 for r in rows[1]]
        assert np.allclose(shares, own["share"], atol=0.002)
        excess = own["excess"].tolist()
        assert [r[4] for r in rows[1]] == [f"{float(f'{e:.4g}'):+.3f} ± 0.200" for e in excess]
        places = [float(r[5].rstrip("%")) / 100 for r in rows[1]]
        assert np.allclose(places, own["exceeds"], atol=0.0051)
        assert len(set(places)) > 2
        probable = [r[6].split(" ± ") for r in rows[1]]
        values = [float(value) for value, _ in probable]
        assert np.allclose(values, own["probability_excess"], atol=1e-3)
        assert {error for _, error in probable} == {"0.020"}
        aside = browser.text("#record .framed:nth-of-type(2) .aside")
        assert "positions where removing the same shape costs less" in aside

    def test_faithfulness_has_a_column(self, browser, tmp_path):
        run = write_run(tmp_path / "run", images=12, methods=("GradCAM", "LayerCAM"))
        path = run / "shard-00000" / "maps.parquet"
        maps = pd.read_parquet(path)
        maps["insertion_auc"] = np.linspace(0, 1, len(maps))
        maps.to_parquet(path, index=False)
        seal(run)
        self.open(browser, write_report(run))
        heads = browser.texts("#record .framed:nth-of-type(1) th")
        cells = browser.texts("#record .framed:nth-of-type(1) td:last-child")
        assert heads[-1] == "insertion AUC"
        assert cells == [f"{v:.3f}" for v in maps.loc[maps["image"] == 0, "insertion_auc"]]
        means = maps.groupby("method")["insertion_auc"].mean()
        rows = {
            row[0]: row[1:]
            for row in browser.run(
                "return [...document.querySelectorAll('.findings tbody tr')].map((r) =>"
                "[r.cells[0].firstChild.textContent, ...[...r.cells].slice(1)"
                ".map((c) => c.querySelector('.value').textContent)])"
            )
        }
        assert rows["insertion AUC"] == [f"{mean:.3f}" for mean in means]

    def test_a_click_on_a_picture_opens_that_one_beside_the_photograph(self, browser, usual):
        browser.open(usual[1]).gallery()
        heat = browser.run(f"return {HEAT}")
        browser.run("document.querySelectorAll('#cards li:first-child .tile')[2].click()")
        sides = "[...document.querySelectorAll('#record .canvas .picture')].map((p) =>"
        assert browser.run(f"return {sides} p.querySelector('.heat')?.src ?? null)") == [
            None,
            heat[1],
        ]

    def test_one_slider_compares_two_maps(self, browser, usual):
        self.open(browser, usual[1])
        options = browser.texts("#record [data-side='0'] option")
        assert options[0] == "photograph"
        assert sorted(options[1:]) == sorted(
            f"{method}: {c}" for method in ("GradCAM", "LayerCAM") for c in Made().classes
        )
        for side, value in (
            (0, options.index("GradCAM: sad")),
            (1, options.index("LayerCAM: sad")),
        ):
            browser.run(
                "const select = document.querySelector(`#record [data-side='${arguments[0]}']`);"
                "select.value = arguments[1]; select.dispatchEvent(new Event('change'));",
                side,
                value,
            )
        alts = browser.run(
            "return [...document.querySelectorAll('#record .photo')].map((i) => i.alt)"
        )
        assert alts == ["GradCAM: sad", "LayerCAM: sad"]
        heat = "return [...document.querySelectorAll('#record .heat')].map((i) => i.src)"
        assert len(set(browser.run(heat))) == 2
        seen = (
            "const [left, right] = document.querySelectorAll('#record .canvas .picture');"
            "return [left, right].map((p) => getComputedStyle(p).clipPath)"
        )
        slider = browser.driver.find_element("id", "split")
        slider.send_keys("\ue011")  # Home: all of the right one
        assert browser.run(seen) == ["inset(0px 100% 0px 0px)", "inset(0px 0px 0px 0%)"]
        slider.send_keys("\ue010")  # End
        assert browser.run(seen) == ["inset(0px 0% 0px 0px)", "inset(0px 0px 0px 100%)"]
        # The next image shows the same two.
        browser.run("document.querySelector('[data-turn=\"1\"]').click()")
        chosen = browser.run(
            "return [...document.querySelectorAll('#record [data-side]')]"
            ".map((s) => s.selectedOptions[0].text.split(':')[0])"
        )
        assert chosen == ["GradCAM", "LayerCAM"]

    def test_dragging_over_the_picture_moves_the_slider(self, browser, usual):
        from selenium.webdriver.common.action_chains import ActionChains

        self.open(browser, usual[1])
        stage = browser.driver.find_element("class name", "stage")
        width = stage.size["width"]
        actions = ActionChains(browser.driver, duration=20)
        actions.move_to_element(stage).click_and_hold().move_by_offset(-width // 4, 0)
        actions.release().move_by_offset(
            20, 0
        ).perform()  # what follows without a button is no drag
        assert browser.run("return Number(document.getElementById('split').value)") in (24, 25, 26)

    def test_zoom_enlarges_and_the_box_scrolls(self, browser, usual):
        self.open(browser, usual[1])
        size = (
            "const stage = document.querySelector('.stage');"
            "return [stage.clientWidth, stage.firstChild.clientWidth, stage.scrollLeft]"
        )
        box, picture, _ = browser.run(size)
        assert box == picture
        browser.run("document.getElementById('zoom-in').click()")
        browser.run("document.getElementById('zoom-in').click()")
        box, picture, left = browser.run(size)
        assert picture == pytest.approx(2.25 * box, abs=2)
        assert left == pytest.approx((picture - box) / 2, abs=2)  # the middle stays
        for _ in range(9):
            browser.run("document.getElementById('zoom-in').click()")
        box, picture, _ = browser.run(size)
        assert picture == pytest.approx(8 * box, abs=2)
        for _ in range(9):
            browser.run("document.getElementById('zoom-out').click()")
        assert browser.run(size)[0] == browser.run(size)[1]

    def test_arrows_turn_and_focus_stays_on_the_button(self, browser, usual):
        self.open(browser, usual[1])
        names = browser.run("return report.images.map((image) => image.name)")
        assert browser.run("return document.activeElement.textContent") == "Next"
        browser.press("ARROW_RIGHT", "ARROW_RIGHT", "ARROW_LEFT", "ENTER")
        assert browser.text("#record-title") == names[2]
        assert browser.run("return document.activeElement.textContent") == "Next"
        browser.run("document.getElementById('split').focus()")
        browser.press("ARROW_RIGHT")  # moves the slider alone
        assert browser.text("#record-title") == names[2]

    def test_turning_goes_on_behind_the_cards_that_are_shown(self, browser, usual):
        self.open(browser, usual[1], 23)
        browser.run("document.querySelector('[data-turn=\"1\"]').click()")
        browser.press("ESCAPE")
        browser.until(f"return {ACTIVE} === report.images[24].name")


class TestSaving:
    def test_a_cards_pictures(self, browser, usual, tmp_path):
        browser.open(usual[1]).gallery()
        browser.choose("opacity", 100)
        browser.run("document.getElementById('outlines').click()")
        file = browser.saved(tmp_path / "saved", "#cards li:first-child .tool")
        assert file.name == "folder_00000.png-maps.png"
        picture = np.asarray(Image.open(file).convert("RGB")).astype(int)
        assert picture.shape == (360 + 60, 3 * 372 - 12, 3)
        # The photograph's own colours on the left, each map's beside it.
        photo = browser.run("return pictures[0].photo")
        thumbnail = np.asarray(decoded(photo).resize((360, 360), Image.Resampling.BILINEAR))
        assert np.abs(picture[30:390, :360] - thumbnail).mean() < 3
        for i, address in enumerate(browser.run(f"return {HEAT}")):
            heat = np.asarray(decoded(address).resize((360, 360), Image.Resampling.BILINEAR))
            assert np.abs(picture[30:390, (i + 1) * 372 :][:, :360] - heat).mean() < 6

    def test_the_large_picture_as_it_is_shown(self, browser, usual, tmp_path):
        browser.open(usual[1])
        browser.choose("opacity", 100)
        browser.run("document.getElementById('outlines').click()")
        browser.run("document.querySelector('.card').click()")
        browser.choose("split", 25)
        file = browser.saved(tmp_path / "saved", "#save-picture")
        picture = np.asarray(Image.open(file).convert("RGB")).astype(int)
        side = len(picture)
        assert picture.shape == (side, side, 3)
        photo = decoded(browser.run("return pictures[0].photo")).resize((side, side))
        heat = decoded(browser.run("return document.querySelector('#record .heat').src"))
        heat = np.asarray(heat.resize((side, side)))
        quarter = side // 4
        assert np.abs(picture[:, : quarter - 4] - np.asarray(photo)[:, : quarter - 4]).mean() < 4
        assert np.abs(picture[:, quarter + 4 :] - heat[:, quarter + 4 :]).mean() < 6

    def test_the_table_of_images(self, browser, usual, tmp_path):
        tables = load(usual[0])
        browser.open(usual[1])
        browser.choose("correct", "false")
        file = browser.saved(tmp_path / "saved", "#save")
        table = pd.read_csv(file, encoding="utf-8-sig")
        wrong = tables.images[~tables.images["correct"].astype(bool)]
        maps = tables.maps[tables.maps["image"].isin(wrong["image"])]
        maps = maps.sort_values(["image", "method", "k"])
        assert table["image"].tolist() == maps["image"].tolist()
        assert table["method"].tolist() == maps["method"].tolist()
        assert np.allclose(table["score"], maps["score"], rtol=1e-4)
        names = maps["image"].map(wrong.set_index("image")["name"])
        assert table["name"].tolist() == names.tolist()
        regions = tables.regions[tables.regions["region"] == "eyes"]
        keys = ["image", "method", "k"]
        density = maps.merge(regions, on=keys, suffixes=("", "_r"))["density"]
        assert np.allclose(table["density of eyes"], density, rtol=1e-3, equal_nan=True)

    def test_findings_and_regions(self, browser, usual, tmp_path):
        browser.open(usual[1])
        rows = {}
        for name in ("findings.csv", "regions.csv"):
            file = browser.saved(tmp_path / "saved", f"[data-file='{name}']")
            rows[name] = list(csv.DictReader(io.StringIO(file.read_text("utf-8-sig"))))
        (densest,) = (
            row
            for row in rows["findings.csv"]
            if (row["finding"], row["method"]) == ("densest region", "LayerCAM")
        )
        own = [
            row
            for row in rows["regions.csv"]
            if (row["group"], row["method"], row["value"]) == ("all images", "LayerCAM", "density")
        ]
        top = max(own, key=lambda row: float(row["mean"]))
        assert densest["value"] == f"\u2068{top['region']}\u2069 {float(top['mean']):.2f}"

    def test_no_name_is_a_formula(self, browser, page, tmp_path):
        browser.open(page)
        text = browser.saved(tmp_path / "saved", "#save").read_text("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline="")))
        names = [row[1] for row in rows[1:]]
        assert "'=HYPERLINK(1)" in names
        for name in HOSTILE[:10]:
            assert name in names
        assert len({len(row) for row in rows}) == 1


def decoded(address):
    content = base64.b64decode(address.split(",")[1])
    return Image.open(io.BytesIO(content)).convert("RGB")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "run"
    made = Made(
        images=40,
        classes=tuple(HOSTILE),
        names=dict(enumerate(HOSTILE)) | {39: HOSTILE[0]},
        methods=("GradCAM", HOSTILE[2] + "y" * 5000),
        region_names=(*HOSTILE[:7], "x" * 300),
        unreadable=(39,),
        every_class=True,
    )
    return write_report(write_run(folder, made))


class TestHostile:
    def test_names_are_text_and_nothing_runs(self, browser, page):
        browser.open(page)
        assert browser.names()[: len(HOSTILE)] == HOSTILE
        browser.run("document.querySelector('.card').click()")
        assert browser.text("#record-title") == HOSTILE[0]
        assert browser.run("return window.taken ?? null") is None
        assert browser.run("return document.scripts.length") == 3
        assert browser.run("return document.querySelectorAll('img[onerror]').length") == 0
        heads = browser.run(
            "return [...document.querySelectorAll('.grid')[0].tHead.rows[0].cells]"
            ".map((c) => c.textContent)"
        )
        assert heads[1:8] == HOSTILE[:7]
        titles = browser.run(
            "return [...document.querySelectorAll('#cards .file')].map((c) => c.title)"
        )
        assert titles[: len(HOSTILE)] == HOSTILE  # the whole name, however much of it is shown

    @pytest.mark.parametrize("width", [390, 1280])
    def test_long_names_do_not_widen_the_page(self, browser, page, width):
        browser.screen(width, 760)
        browser.open(page)
        assert browser.run("return document.documentElement.scrollWidth") <= width
        tallest = browser.run(
            "return Math.max(...[...document.querySelectorAll('.caption')]"
            ".map((c) => c.getBoundingClientRect().height))"
        )
        assert tallest < 260
        for index in (8, 11):
            browser.run("document.querySelectorAll('.card')[arguments[0]].click()", index)
            assert browser.run("return document.getElementById('record').scrollWidth") <= width
            top = browser.run("return document.querySelector('.stage').getBoundingClientRect().top")
            assert top < 300  # the picture is in sight, whatever the name
            browser.press("ESCAPE")

    def test_searching_for_marks_finds_them(self, browser, page):
        browser.open(page)
        browser.choose("search", "</SCRIPT><script>")
        browser.until("return document.querySelectorAll('#cards li').length === 1")
        assert browser.names() == [HOSTILE[1]]

    def test_the_policy_stops_what_would_get_in(self, browser, page):
        browser.may_complain = True
        browser.open(page)
        browser.run(
            "const s = document.createElement('script'); s.textContent = 'window.taken = 9';"
            "document.body.append(s);"
            "const i = new Image(); i.src = 'file:///etc/hostname'; document.body.append(i);"
        )
        assert browser.run("return window.taken ?? null") is None
        said = " ".join(browser.complaints())
        assert "script-src" in said
        assert "img-src" in said


class TestScreens:
    @pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
    @pytest.mark.parametrize("width", [360, 768, 1280])
    def test_no_sideways_scrolling(self, browser, usual, width, dark):
        browser.screen(width, 800, dark=dark)
        browser.open(usual[1])
        assert browser.run("return document.documentElement.scrollWidth") <= width
        browser.run("document.querySelector('.card').click()")
        assert browser.run("return document.getElementById('record').scrollWidth") <= width

    @pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
    def test_text_is_readable(self, browser, usual, dark):
        browser.screen(1280, 800, dark=dark)
        browser.open(usual[1])
        colors = browser.run(
            "const pairs = []; for (const e of document.querySelectorAll("
            "'p, h1, h2, h3, td, th, small, .said *, .tile-name, .file, label, dt, dd')) {"
            "let on = e; while (getComputedStyle(on).backgroundColor.endsWith(', 0)')) {"
            "on = on.parentElement; if (!on) break; }"
            "if (on) pairs.push([getComputedStyle(e).color, getComputedStyle(on).backgroundColor,"
            "e.className + ' ' + e.tagName]);} return pairs"
        )
        assert len(colors) > 100
        poor = {(a, b, c) for a, b, c in map(tuple, colors) if contrast(a, b) < 4.5}
        assert not poor
        background = "return getComputedStyle(document.body).backgroundColor"
        assert (luminance(browser.run(background)) < 0.1) == dark

    def test_controls_have_names_and_pictures_alternatives(self, browser, usual):
        browser.open(usual[1])
        browser.gallery()
        find = browser.driver.find_elements
        found = find(
            "css selector",
            "form :is(input, select, button), main > section .scroll, .heading button",
        )
        found += find("css selector", ".card")[:4]
        nameless = [
            e.get_attribute("outerHTML")[:80]
            for e in found
            if not e.accessible_name and e.is_displayed()
        ]
        assert not nameless
        assert browser.run(
            "return [...document.querySelectorAll('.tile:first-child img')]"
            ".every((image) => image.alt.startsWith('Image '))"
        )
        landmarks = browser.run(
            "return ['header', 'main', 'footer', '[role=search]', '[role=status]', 'h1']"
            ".map((s) => document.querySelectorAll(s).length)"
        )
        assert landmarks == [1] * 6

    def test_nothing_is_said_of_keys_where_there_are_none(self, browser, usual):
        hint = "return getComputedStyle(document.querySelector('.keyboard')).display"
        browser.open(usual[1])
        assert browser.run(hint) != "none"
        browser.screen(390, 844, touch=True)
        assert browser.run(hint) == "none"

    def test_tables_of_a_record_fit_and_names_stay_beside_their_lines(self, browser, usual):
        browser.open(usual[1])
        browser.run("document.querySelector('.card').click()")
        boxes = browser.run(
            "return [...document.querySelectorAll('#record .scroll')]"
            ".map((e) => [e.scrollWidth, e.clientWidth])"
        )
        assert len(boxes) == 2
        assert all(whole == shown for whole, shown in boxes)
        tops = browser.run(
            "return [...document.querySelectorAll('#record td .line')].map((line) => {"
            "const [a, b] = [line, line.nextSibling].map((e) => e.getBoundingClientRect());"
            "return [a.top, b.top, b.bottom]; })"
        )
        assert len(tops) == 7
        assert all(top < line < bottom for line, top, bottom in tops)

    def test_a_record_is_readable_on_a_phone(self, browser, usual):
        browser.screen(390, 844, touch=True)
        browser.open(usual[1])
        browser.run("document.querySelector('.card').click()")
        box = browser.run(
            "const b = document.querySelector('.stage').getBoundingClientRect();"
            "return [b.left, b.right, b.top, b.bottom]"
        )
        assert box[1] - box[0] > 340
        assert box[3] < 844
        cut = browser.run(
            "return [...document.querySelectorAll('#record .scroll')]"
            ".filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.ariaLabel)"
        )
        assert cut == []
        small = browser.run(
            "return [...document.querySelectorAll('#record :is(td, th, dd, dt, h2, .said)')]"
            ".filter((e) => parseFloat(getComputedStyle(e).fontSize) < 13).length"
        )
        assert small == 0
        touchable = browser.run(
            "return [...document.querySelectorAll('#record :is(button, select)')]"
            ".map((e) => e.getBoundingClientRect().height)"
        )
        assert min(touchable) >= 40

    def test_it_prints(self, browser, usual):
        browser.open(usual[1])
        browser.names()
        printed = browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
        content = base64.b64decode(printed["data"])
        assert content.startswith(b"%PDF")
        # Pictures and heat of every image are in it, though no more than a few were in sight.
        assert content.count(b"/Subtype /Image") >= 59
        assert "unprinted" not in browser.run("return document.querySelector('.cards').innerHTML")


class TestOtherRuns:
    def test_no_images(self, browser, tmp_path):
        browser.open(write_report(write_run(tmp_path / "run", images=0)))
        assert browser.text("#count") == "There are no images to show."

    def test_neither_labels_nor_classes_nor_regions(self, browser, tmp_path):
        run = write_run(
            tmp_path / "run", images=3, labels=False, classes=None, scored=False, ablated=False
        )
        browser.open(write_report(run))
        assert len(browser.names()) == 3
        hidden = browser.run(
            "return [...document.querySelectorAll('[data-for]')].filter((l) => l.hidden)"
            ".map((l) => l.dataset.for)"
        )
        assert {"label", "correct", "region", "pair", "setting", "target"} <= set(hidden)
        assert browser.text("#cards .said").startswith("predicted: class ")
        browser.run("document.querySelector('.card').click()")
        page = browser.run("return document.body.innerText")
        assert not re.search(r"region|label|true|right|wrong|accuracy|agree|effect", page)

    def test_half_precision(self, browser, tmp_path):
        browser.open(write_report(write_run(tmp_path / "run", images=2, dtype="float16")))
        browser.gallery()
        assert browser.run("return document.querySelector('#cards .heat').naturalWidth") > SIDE

    @pytest.mark.parametrize("shown", [400, pytest.param(2000, marks=pytest.mark.exhaustive)])
    def test_many_images_stay_fluid(self, browser, tmp_path, shown):
        made = dataclasses.replace(Made(), images=shown + 100, every_class=True)
        run = write_run(tmp_path / "run", made)
        start = time.perf_counter()
        page = write_report(run, limit=shown)
        written = time.perf_counter() - start
        browser.open(page)
        ready = browser.run("return Number(document.documentElement.dataset.ready)")
        assert browser.text("#count") == f"First 24 of {shown:,} images"
        assert f"{shown:,} of {shown + 100:,} images" in browser.text("#gallery > .aside")
        assert ready < 2.5 * shown
        assert page.stat().st_size < 25e3 * shown
        assert len(browser.names()) == shown
        spent = {
            f"{control} {value}": browser.driver.execute_async_script(
                "const [control, value, done] = arguments; const start = performance.now();"
                "const c = document.getElementById(control); c.value = value;"
                "c.dispatchEvent(new Event('change'));"
                "requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)))",
                control,
                value,
            )
            for control, value in (
                ("label", "1"),
                ("label", ""),
                ("sort", "density:1"),
                ("target", "k1"),
            )
        }
        assert browser.run("return document.querySelectorAll('.heat').length") < 300
        times = ", ".join(f"{name}: {ms:.0f} ms" for name, ms in spent.items())
        size = f"{page.stat().st_size / 1e6:.1f} MB, written in {written:.1f} s"
        print(f"{shown:,} images, {size}, ready after {ready} ms; {times}")


def luminance(color):
    red, green, blue = (
        float(part) / 255 for part in color.split("(")[1].rstrip(")").split(",")[:3]
    )
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)
    ]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)

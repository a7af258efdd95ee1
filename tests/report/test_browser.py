"""The page in a real Chromium: what a user sees and does."""

import base64
import dataclasses
import time

import numpy as np
import pytest
import torch

import camlens
from camlens.dataset import Run
from camlens.report import write_report
from camlens.report.tables import load

from .made import SIDE, Made, write_run

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
]


def names_where(tables, condition, order="image", ascending=True):
    rows = tables.images[condition] if condition is not None else tables.images
    return rows.sort_values(order, ascending=ascending, kind="stable")["name"].tolist()


class TestNumbers:
    @pytest.mark.parametrize(
        ("grid", "size"),
        [
            *(((7, 7), (48, 48)), ((14, 14), (224, 224)), ((3, 5), (30, 47)), ((1, 1), (9, 8))),
            *(((48, 48), (48, 48)), ((64, 64), (48, 40)), ((2, 9), (100, 3))),
        ],
    )
    def test_heatmaps_are_those_of_camlens(self, browser, usual, grid, size):
        browser.open(usual[1])
        cells = torch.randint(0, 256, grid, dtype=torch.uint8)
        found = browser.run(
            "return Array.from(heatmap(Uint8Array.from(arguments[0]), ...arguments[1]))",
            cells.flatten().tolist(),
            [*grid, *size],
        )
        heat = camlens.heatmap.resize(cells[None, None].float(), size)
        expected = camlens.heatmap.scale(heat).flatten()
        assert torch.allclose(torch.tensor(found).float(), expected, atol=2e-6)

    def test_no_heat_stays_none(self, browser, usual):
        browser.open(usual[1])
        found = browser.run("return Array.from(heatmap(new Uint8Array(4), 2, 2, 3, 3))")
        assert found == [0] * 9

    def test_a_card_has_the_colours_of_the_overlay(self, browser, usual):
        run = Run(usual[0])
        browser.open(usual[1])
        browser.gallery()
        name = browser.names()[0]
        pixels = browser.run(
            "const c = document.querySelector('#cards .heat');"
            "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        )
        image = run.images.loc[run.images["name"] == name].iloc[0]
        maps = run.maps
        row = maps[
            (maps["image"] == image["image"])
            & (maps["target"] == image["prediction"])
            & (maps["method"] == "GradCAM")
        ]
        expected = camlens.overlay(
            torch.zeros(1, 3, SIDE, SIDE), run.heatmaps(row)[None], alpha=1.0
        )
        shown = torch.tensor(pixels).view(SIDE, SIDE, 4)[..., :3].permute(2, 0, 1)
        away = (shown - expected[0, 0].int()).abs().amax(dim=0)
        assert (away <= 1).float().mean() > 0.99  # else the neighbouring entry, by rounding
        assert away.max() <= 8

    def test_the_contour_of_a_ramp_is_a_line(self, browser, usual):
        browser.open(usual[1])
        ramp = np.tile(np.linspace(0, 1, 9), (9, 1))
        found = browser.run("return contour(arguments[0], 9, 9, 0.3)", ramp.ravel().tolist())
        assert len(found) == 8
        assert np.allclose(np.array(found)[:, [0, 2]], 0.3 * 8 + 0.5)

    def test_the_contour_of_a_hill_goes_round_it(self, browser, usual):
        browser.open(usual[1])
        y, x = np.mgrid[:21, :21] - 10
        hill = np.maximum(0, 1 - np.hypot(x, y) / 10)
        found = np.array(
            browser.run("return contour(arguments[0], 21, 21, 0.47)", hill.ravel().tolist())
        )
        assert np.allclose(np.hypot(*(found[:, :2] - 10.5).T), 5.3, atol=0.1)
        # Each point is where two segments meet.
        ends = np.round(found.reshape(-1, 2), 6)
        assert (np.unique(ends, axis=0, return_counts=True)[1] == 2).all()


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
            f"{a}>{b}": f"{classes[a]} taken for {classes[b]} ({n})" for (a, b), n in pairs.items()
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
        assert browser.text("#count").startswith("None of 59 images fits")
        browser.run("document.getElementById('reset').click()")
        browser.until("return document.querySelectorAll('#cards li').length === 59")
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


class TestShowing:
    def test_the_slider_sets_the_heats_opacity(self, browser, usual):
        browser.open(usual[1])
        heat = "return getComputedStyle(document.querySelector('#cards .heat')).opacity"
        assert browser.run(heat) == "0.5"
        slider = browser.driver.find_element("id", "opacity")
        slider.send_keys("\ue011")  # Home
        assert browser.run(heat) == "0"
        slider.send_keys("\ue010")  # End
        assert browser.run(heat) == "1"
        assert slider.get_attribute("aria-valuetext") == "100% heatmap"

    def test_method_and_target_change_the_picture(self, browser, usual):
        browser.open(usual[1])
        drawn = "return document.querySelector('#cards .heat').toDataURL()"
        browser.gallery()
        seen = {browser.run(drawn)}
        for control, value in (("target", "k0"), ("target", "k1"), ("setting", "1")):
            browser.choose(control, value)
            seen.add(browser.run(drawn))
        assert len(seen) >= 3  # one of k0 and k1 may be the predicted class
        assert browser.options("target") == {
            **{"prediction": "predicted class", "label": "true class"},
            **{"k0": "angry", "k1": "happy", "k2": "sad"},
        }

    def test_contours_come_and_go(self, browser, usual):
        browser.open(usual[1])
        browser.gallery()
        line = "return document.querySelector('#cards .line').width"
        assert browser.run(line) == 0
        browser.choose("contours", True)
        assert browser.run(line) > SIDE
        browser.choose("contours", False)
        assert browser.run(line) == 0

    def test_a_map_without_evidence_is_not_coloured(self, browser, usual):
        browser.open(usual[1])
        browser.choose("search", "00003")
        browser.until("return document.querySelectorAll('#cards li').length === 1")
        browser.gallery()
        assert browser.text("#cards .place") == "no evidence"
        assert browser.run("return document.querySelector('#cards .heat').width") == 0

    def test_only_what_is_near_is_drawn(self, browser, usual):
        browser.screen(400, 500)
        browser.open(usual[1])
        browser.run("document.getElementById('cards').scrollIntoView({behavior: 'instant'})")
        drawn = "return [...document.querySelectorAll('.heat')].filter((c) => c.width).length"
        browser.until(drawn)
        assert 0 < browser.run(drawn) < 30


class TestKeyboard:
    def active(self, browser):
        return browser.run("return document.activeElement.querySelector('.file')?.textContent")

    def test_arrows_move_and_one_card_is_a_stop(self, browser, usual):
        browser.open(usual[1])
        names = browser.names()
        columns = browser.run("return columnsShown()")
        assert columns > 2
        browser.run("document.querySelector('.card[tabindex=\"0\"]').focus()")
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
        browser.until("return document.activeElement.className === 'card'")
        assert self.active(browser) == names[1]

    def test_the_skip_link_comes_first(self, browser, usual):
        browser.open(usual[1])
        browser.press("TAB")
        assert browser.run("return document.activeElement.className") == "skip"
        assert browser.run("return document.activeElement.getBoundingClientRect().width") > 50


class TestRecord:
    def test_it_has_all_numbers_of_the_image(self, browser, usual):
        tables = load(usual[0])
        browser.open(usual[1])
        browser.run("document.querySelectorAll('.card')[4].click()")
        name = browser.text("#record-title")
        image = tables.images[tables.images["name"] == name].iloc[0]
        rows = browser.run(
            "return [...document.querySelectorAll('#record table')].map((t) =>"
            "[...t.tBodies[0].rows].map((r) => [...r.cells].map((c) => c.textContent)))"
        )
        maps = tables.maps[tables.maps["image"] == image["image"]]
        assert len(rows[0]) == len(maps) == 6
        assert np.allclose([float(r[1]) for r in rows[0]], maps["score"], atol=1e-3)
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
        assert np.allclose([float(r[4]) for r in rows[1]], own["excess"], atol=1e-3)
        assert np.allclose([float(r[5]) for r in rows[1]], own["probability_excess"], atol=1e-3)

    def test_another_target_changes_picture_and_regions(self, browser, usual):
        browser.open(usual[1])
        browser.run("document.querySelector('.card').click()")
        state = (
            "return [document.querySelector('#record .heat').toDataURL(),"
            "document.querySelectorAll('#record table')[1].textContent]"
        )
        before = browser.run(state)
        browser.run("document.querySelector('#record [data-map]:not(:checked)').click()")
        after = browser.run(state)
        assert before[0] != after[0]
        assert before[1] != after[1]
        assert browser.run("return document.activeElement.checked")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "run"
    made = Made(
        images=40,
        classes=tuple(HOSTILE),
        names=dict(enumerate(HOSTILE)) | {39: HOSTILE[0]},
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

    @pytest.mark.parametrize("width", [360, 1280])
    def test_long_names_do_not_widen_the_page(self, browser, page, width):
        browser.screen(width, 760)
        browser.open(page)
        assert browser.run("return document.documentElement.scrollWidth") <= width
        browser.run("document.querySelectorAll('.card')[8].click()")
        assert browser.run("return document.getElementById('record').scrollWidth") <= width

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
            "'p, h1, h2, h3, td, th, small, .said *, .place, .file, label, dt, dd, .figure *')) {"
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
            "form :is(input, select, button, canvas), main > section > .framed .scroll",
        )
        found += find("css selector", ".card")[:4]
        nameless = [e.get_attribute("outerHTML")[:80] for e in found if not e.accessible_name]
        assert not nameless
        assert browser.run("return [...document.images].every((i) => i.alt.startsWith('Image '))")
        landmarks = browser.run(
            "return ['header', 'main', 'footer', '[role=search]', '[role=status]', 'h1']"
            ".map((s) => document.querySelectorAll(s).length)"
        )
        assert landmarks == [1] * 6

    def test_it_prints(self, browser, usual):
        browser.open(usual[1])
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
        assert browser.text("#cards .place") == "grid 12\u00d712"
        assert browser.text("#cards .said").startswith("class ")
        browser.run("document.querySelector('.card').click()")
        assert "No regions were scored." in browser.text("#record")

    def test_half_precision(self, browser, tmp_path):
        browser.open(write_report(write_run(tmp_path / "run", images=2, dtype="float16")))
        browser.gallery()
        assert browser.run("return document.querySelector('#cards .heat').width") == SIDE

    @pytest.mark.slow
    def test_2000_images_stay_fluid(self, browser, tmp_path):
        made = dataclasses.replace(Made(), images=2500, every_class=True)
        run = write_run(tmp_path / "run", made)
        start = time.perf_counter()
        page = write_report(run)
        written = time.perf_counter() - start
        browser.open(page)
        ready = browser.run("return Number(document.documentElement.dataset.ready)")
        assert browser.text("#count") == "All 2,000 images"
        assert "2,000 of 2,500 images" in browser.text("#gallery .lead")
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
        drawn = "return [...document.querySelectorAll('.heat')].filter((c) => c.width).length"
        assert browser.run(drawn) < 200
        times = ", ".join(f"{name}: {ms:.0f} ms" for name, ms in spent.items())
        size = f"{page.stat().st_size / 1e6:.1f} MB, written in {written:.1f} s"
        print(f"2,000 images, {size}, ready after {ready} ms; {times}")


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

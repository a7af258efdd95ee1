"""axe-core, which knows the rules of accessible pages, finds no fault in the report."""

import functools

import pytest

from camlens import GradCAM, Saliency
from camlens.dataset import explain_dataset
from camlens.faithfulness import deletion, insertion
from camlens.report import write_report
from tests.chromium import NO_AXE, axe_core
from tests.dataset.made import HALVES, Noise, net

pytestmark = pytest.mark.slow

SCREENS = pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), (390, True)], ids=["wide and light", "narrow and dark"]
)


@pytest.fixture(scope="module")
def axe():
    """Return axe-core's code, or skip with the reason."""
    code = axe_core()
    if code is None:
        pytest.skip(NO_AXE)
    return code


def faults(browser, axe):
    """Return a line for each element that breaks a rule: the rule, the element, what is wrong."""
    browser.run(axe)
    found = browser.driver.execute_async_script(
        "const done = arguments[0]; axe.run({resultTypes: ['violations', 'passes']}).then(done)"
    )
    assert len(found["passes"]) > 10  # so many rules had something to look at
    return [
        f"{rule['id']}: {' '.join(node['target'])}: {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


@SCREENS
def test_images_and_tables(browser, usual, axe, width, dark):
    browser.screen(width, 900, dark=dark)
    browser.open(usual[1]).gallery()
    browser.run("document.getElementById('filter').click()")
    browser.run("for (const part of document.querySelectorAll('details')) part.open = true")
    assert faults(browser, axe) == []


@SCREENS
def test_one_image_s_record(browser, usual, axe, width, dark):
    browser.screen(width, 900, dark=dark)
    browser.open(usual[1]).gallery()
    browser.run("document.querySelector('.card').click()")
    assert faults(browser, axe) == []


@pytest.fixture(scope="module", params=[12, 3], ids=["verdicts", "single images"])
def judged(request, tmp_path_factory):
    """Return the page of a run with metrics: of many images, or of so few that each has a table."""
    model = net()
    folder = tmp_path_factory.mktemp("judged")
    run = explain_dataset(
        [GradCAM(model, "1"), Saliency(model)],
        Noise(request.param, corrupt=None),
        folder / "run",
        metrics=[functools.partial(metric, step=32) for metric in (deletion, insertion)],
        regions=HALVES,
        progress=False,
    )
    return write_report(run, folder / "page.html")


@SCREENS
def test_which_method_to_trust(browser, judged, axe, width, dark):
    browser.screen(width, 900, dark=dark)
    browser.open(judged)
    assert faults(browser, axe) == []

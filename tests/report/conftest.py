"""A real Chromium for the tests of the page, and runs to make pages of."""

import time

import pytest

from camlens.report import write_report

from ..chromium import NO_CHROMIUM, start
from .made import write_run


@pytest.fixture(scope="session")
def chromium():
    """Start Debian's Chromium once, or skip with the reason."""
    driver = start(loggingPrefs={"browser": "ALL", "performance": "ALL"})
    if driver is None:
        pytest.skip(NO_CHROMIUM)
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium):
    """Return a browser of a wide, light screen; fail if a page complained or loaded anything."""
    page = Page(chromium)
    page.screen(1280, 900)
    page.drain()
    yield page
    if not page.may_complain:
        assert page.complaints() == []
    assert page.requests() == []


class Page:
    """What tests do with a page."""

    def __init__(self, driver):
        self.driver = driver
        self.may_complain = False

    def open(self, path):
        self.driver.get(path.as_uri())
        self.until("return 'ready' in document.documentElement.dataset")
        return self

    def gallery(self):
        """Scroll to the images and wait until the first is drawn, as far as it can be."""
        self.run("document.getElementById('cards').scrollIntoView({behavior: 'instant'})")
        self.until("return document.querySelector('#cards img').naturalWidth > 0")
        return self

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, script, seconds=10):
        """Wait until a script returns something true, and return it."""
        end = time.monotonic() + seconds
        while not (found := self.run(script)):
            assert time.monotonic() < end, f"not within {seconds} s: {script}"
            time.sleep(0.02)
        return found

    def screen(self, width, height, *, dark=False, touch=False):
        command = self.driver.execute_cdp_cmd
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        command("Emulation.setDeviceMetricsOverride", size)
        command("Emulation.setTouchEmulationEnabled", {"enabled": touch})
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        command("Emulation.setEmulatedMedia", {"media": "", "features": [scheme]})

    def choose(self, control, value):
        """Set a select, input or check box as a user would."""
        self.run(
            "const c = document.getElementById(arguments[0]);"
            "if (c.type === 'checkbox') c.checked = arguments[1]; else c.value = arguments[1];"
            "for (const kind of ['input', 'change']) c.dispatchEvent(new Event(kind));",
            control,
            value,
        )

    def names(self):
        """Show all cards, and return their names in order."""
        self.run("const more = document.getElementById('more'); if (!more.hidden) more.click()")
        return self.run(
            "return [...document.querySelectorAll('#cards .file')].map((c) => c.textContent)"
        )

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def texts(self, selector):
        """Return the texts of all elements that a selector finds."""
        return self.run(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)",
            selector,
        )

    def options(self, control):
        """Return a select's values and texts."""
        return dict(
            self.run(
                "return [...document.getElementById(arguments[0]).options]"
                ".map((o) => [o.value, o.text])",
                control,
            )
        )

    def press(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            ActionChains(self.driver).send_keys(getattr(Keys, key, key)).perform()

    def saved(self, folder, selector):
        """Click on what saves a file, and return the file once it is whole."""
        command = self.driver.execute_cdp_cmd
        folder.mkdir(exist_ok=True)
        before = set(folder.iterdir())
        command("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
        self.run("document.querySelector(arguments[0]).click()", selector)
        end = time.monotonic() + 10
        while not (
            new := [p for p in set(folder.iterdir()) - before if "crdownload" not in p.name]
        ):
            assert time.monotonic() < end, f"nothing was saved by {selector}"
            time.sleep(0.05)
        return new[0]

    def drain(self):
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)

    def complaints(self):
        """Return what the console says of errors and warnings."""
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] != "INFO"]

    def requests(self):
        """Return the addresses that were asked for, but for pages from disk and their own data."""
        import json

        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        urls = [
            m["params"]["request"]["url"]
            for m in messages
            if m["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith(("file:///", "data:", "blob:"))]


@pytest.fixture(scope="session")
def usual(tmp_path_factory):
    """Return a run of 60 images, two methods, all classes, and its page."""
    folder = tmp_path_factory.mktemp("runs") / "usual"
    run = write_run(
        folder,
        images=60,
        methods=("GradCAM", "LayerCAM"),
        every_class=True,
        empty=(3,),
        unreadable=(5,),
    )
    return run, write_report(run)

"""Check the main pages in a browser: axe-core finds no fault, and none is wider than its screen.

``python docs/check_pages.py docs/_build/html`` opens them in Chromium, on a wide light screen and
on a narrow dark one, says what is wrong, and exits with 1. It exits with 0, and says why, where
there is no Chromium or no axe-core. Further arguments are pages to check instead of the main ones.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PAGES = (
    "index",
    "installation",
    "getting_started",
    "tutorial",
    "limits",
    "faq",
    "troubleshooting",
    "glossary",
    "comparison",
    "networks",
    "which_map_to_trust",
    "fer2013",
    "fer2013_accuracy",
    "security",
    "api/explainers",
    "examples/index",
    "examples/plot_1_methods",
)
#: Width in pixels and theme. A theme's colours are the same at both widths.
SCREENS = ((1280, "light"), (390, "dark"))

#: Resolves to a line for each fault: the rule, one of its elements, and what is wrong with it. The
#: page is drawn before, so that its own script has seen the new width.
RUN_AXE = """
const done = arguments[0];
const line = (rule, node) => `${rule.id}: ${node.target.join(" ")}: ${node.failureSummary}`;
const lines = (found) =>
  found.violations.flatMap((rule) => rule.nodes.map((node) => line(rule, node)));
requestAnimationFrame(() => requestAnimationFrame(() =>
  axe.run({resultTypes: ["violations"]})
    .then(lines, (error) => [`axe-core failed: ${error}`]).then(done)
));
"""


def axe_core() -> str | None:
    """Return axe-core's code: one file of a package of which nothing else is used."""
    package = find_spec("axe_playwright_python")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).with_name("axe.min.js").read_text(encoding="utf-8")


def chromium() -> Any:
    """Start Debian's Chromium without a window, or return None."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs or find_spec("selenium") is None:
        return None
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    if os.geteuid() == 0:  # as in a container, where Chromium's own sandbox cannot start
        options.add_argument("--no-sandbox")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    driver.set_script_timeout(300)
    return driver


def faults(driver: Any, axe: str, page: Path) -> list[str]:
    """Return a line for each fault of a page, on each screen."""
    driver.get(page.as_uri())
    driver.execute_script(axe)
    found = []
    for width, theme in SCREENS:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.execute_script("document.body.dataset.theme = arguments[0]", theme)
        lines = driver.execute_async_script(RUN_AXE)
        needed = driver.execute_script("return document.documentElement.scrollWidth")
        if needed > width:
            lines.append(f"the page is {needed} pixels wide")
        found += [f"{width} px, {theme}: {line}" for line in lines]
    return found


def main() -> int:
    """Check the pages in the folder that the first argument names."""
    root, *names = sys.argv[1:]
    pages = [Path(root, f"{name}.html").resolve() for name in names or PAGES]
    missing = [str(page) for page in pages if not page.is_file()]
    if missing:
        print("there is no page", *missing, file=sys.stderr)
        return 1
    axe = axe_core()
    if axe is None:
        print("pages not checked: no axe-core (pip install axe-playwright-python)")
        return 0
    driver = chromium()
    if driver is None:
        print("pages not checked: no Chromium (apt-get install chromium chromium-driver)")
        return 0
    try:
        lines = [f"{page.stem}, {line}" for page in pages for line in faults(driver, axe, page)]
    finally:
        driver.quit()
    print(*lines, f"{len(pages)} pages in a browser, {len(lines)} faults", sep="\n")
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(main())

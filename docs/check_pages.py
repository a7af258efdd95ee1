"""Check the main pages in a browser: axe-core finds no fault, and none is wider than its screen.

``python docs/check_pages.py docs/_build/html`` opens them in Chromium, on a wide light screen and
on a narrow dark one, says what is wrong, and exits with 1. It exits with 0, and says why, where
there is no Chromium or no axe-core. Further arguments are pages to check instead of the main ones.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.chromium import NO_AXE, NO_CHROMIUM, axe_core, start

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
        print(f"pages not checked: {NO_AXE}")
        return 0
    driver = start()
    if driver is None:
        print(f"pages not checked: {NO_CHROMIUM}")
        return 0
    try:
        lines = [f"{page.stem}, {line}" for page in pages for line in faults(driver, axe, page)]
    finally:
        driver.quit()
    print(*lines, f"{len(pages)} pages in a browser, {len(lines)} faults", sep="\n")
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(main())

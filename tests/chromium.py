"""Debian's Chromium without a window, and axe-core, for tests of pages and of the documentation."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

#: What to do where :func:`start` or :func:`axe_core` returns None.
NO_CHROMIUM = "no Chromium: apt-get install chromium chromium-driver; pip install selenium"
NO_AXE = "no axe-core: pip install axe-playwright-python"


def start(**capabilities: Any) -> Any:
    """Start Chromium and return selenium's driver, or None where one of them is not installed."""
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
    for name, value in capabilities.items():
        options.set_capability(f"goog:{name}", value)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    driver.set_script_timeout(300)
    return driver


def axe_core() -> str | None:
    """Return axe-core's code: one file of a package of which nothing else is used."""
    package = find_spec("axe_playwright_python")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).with_name("axe.min.js").read_text(encoding="utf-8")

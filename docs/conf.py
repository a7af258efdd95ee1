"""Sphinx configuration: everything is built from the installed package, without a network."""

import camlens

project = "camlens"
author = "The camlens developers"
copyright = "The camlens developers"
version = release = camlens.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"camlens {version}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["output.css"]

autodoc_member_order = "bysource"
# Show these by name, not by what they stand for.
autodoc_type_aliases = {"Layout": "Layout", "Rule": "Rule", "Targets": "Targets"}
napoleon_use_ivar = True

# A reference that leads nowhere is an error; other libraries' types are not looked up.
nitpicky = True
nitpick_ignore_regex = [("py:class", r"(?!camlens).*")]

# The examples in docstrings are run by pytest; here run those of the pages.
doctest_test_doctest_blocks = ""
# Every page may write files, but not into the checkout.
doctest_global_setup = """
import contextlib, os, tempfile, torch
folder = tempfile.TemporaryDirectory()
before = os.getcwd()
os.chdir(folder.name)
torch.manual_seed(0)
"""
doctest_global_cleanup = """
os.chdir(before)
folder.cleanup()
"""

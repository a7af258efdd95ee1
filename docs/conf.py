"""Sphinx configuration: everything is built from the installed package, without a network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from sphinx.util.inspect import TypeAliasForwardRef

import camlens

project = "camlens"
author = "The camlens developers"
copyright = "The camlens developers"
version = release = camlens.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.doctest",
    "sphinx_gallery.gen_gallery",
    # The tutorial; and benchmarks/results.md and CHANGELOG.md, shown as they are, by myst_parser.
    "myst_nb",
    "sphinx_llms_txt",
    "bare_source",
    "mathml",
    "messages",
    "public_names",
    "starred",
]
# The gallery writes its pages into the folder "examples" beside this file.
exclude_patterns = ["_build", "_ext", "gallery", "examples/*.ipynb"]

html_theme = "furo"
html_math_renderer = "mathml"
html_title = f"camlens {version}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["output.css"]
html_js_files = ["scroll.js"]
templates_path = ["_templates"]

# llms.txt: a line for each page, for programs that read documentation. Addresses are relative,
# since the pages have no home yet.
llms_txt_uri_template = "{docname}.html"
llms_txt_full_file = False

autodoc_member_order = "bysource"
# Show these by name, not by what they stand for. In a union, Sphinx writes an alias by its repr.
autodoc_type_aliases = {"Layout": "Layout", "Rule": "Rule", "Targets": "Targets"}
TypeAliasForwardRef.__repr__ = lambda alias: alias.name
napoleon_use_ivar = True

# A reference that leads nowhere is an error; other libraries' types are not looked up.
nitpicky = True
# CHANGELOG.md goes on one level below the page that shows it.
suppress_warnings = ["myst.header"]
nitpick_ignore_regex = [("py:class", r"(?!camlens).*")]

# Examples are executed in each build; one that fails, fails the build. Nothing is downloaded: the
# network is the base network that comes with examples/fer2013, the photographs come with matplotlib
# and scikit-image.
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("sheets.scrape",),
    "capture_repr": (),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "min_reported_time": 1000,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "thumbnail_size": (320, 224),
    "write_computation_times": False,
}

# The tutorial is committed without outputs and run in each build, in a temporary folder.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds for each cell

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

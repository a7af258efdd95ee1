"""Imports run one way, and importing the package is cheap: the house rules, held by a test."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "camlens"

#: In the order of the data's way; a module imports only from those before it.
FLOW = [
    "files",
    "loading.photographs",
    "loading.preprocessing",
    "loading.weights",
    "loading.exported_programs",
    "loading.factories",
    "loading.models",
    "loading",
    "modules",
    "checks",
    "methods.cam",
    "methods.gradient",
    "methods",
    "derivatives",
    "taps",
    "rectifiers",
    "layers",
    "targets",
    "heatmap",
    "explanation",
    "explain",
    "cam_explainers",
    "gradient_explainers",
    "render",
    "contact_sheet",
    "regions.masks",
    "regions.resolution",
    "regions.scores",
    "regions.tables",
    "regions.intervals",
    "regions.groups",
    "regions.statistics",
    "regions.plots",
    "regions",
    "faithfulness.infill",
    "faithfulness.region_ablation",
    "faithfulness",
    "faces.polygons",
    "faces.template",
    "faces.landmarks",
    "faces.model_files",
    "faces.detector",
    "faces.yunet",
    "faces.mediapipe",
    "faces",
    "dataset.descriptions",
    "dataset.samples",
    "dataset.thumbnails",
    "dataset.loading",
    "dataset.questions",
    "dataset.keeping",
    "dataset.explaining",
    "dataset.tables",
    "dataset.shards",
    "dataset.manifests",
    "dataset.runs",
    "dataset.arguments",
    "dataset.facts",
    "dataset.background",
    "dataset.pipeline",
    "dataset.tasks",
    "dataset.running",
    "dataset",
    "report.wording",
    "report.sampling",
    "report.palette",
    "report.tables",
    "report.grids",
    "report.findings",
    "report.gallery",
    "report.page",
    "report",
    "cli.console",
    "cli.errors",
    "cli.faces",
    "cli.folders",
    "cli.options",
    "cli.outputs",
    "cli.explain",
    "cli.listings",
    "cli.runs",
    "cli.app",
    "cli",
    "cli.__main__",
]

#: Names that stand for what is in them.
PACKAGES = ("loading", "methods", "regions", "faithfulness", "faces", "dataset", "report", "cli")


def imports(name):
    """Return the camlens modules that a module imports at its top."""
    path = SOURCE / f"{name.replace('.', '/')}.py"
    path = path if path.exists() else SOURCE / name / "__init__.py"
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ([] if node.level > 1 else name.split(".")[:-1]) + (node.module or "").split(".")
            prefix = ".".join(part for part in base if part)
            found |= {prefix} if prefix in FLOW and prefix not in PACKAGES else set()
            names = {f"{prefix}.{a.name}".lstrip(".") for a in node.names}
            found |= names & set(FLOW)
    return found


def test_every_module_has_its_place():
    files = {
        str(p.relative_to(SOURCE).with_suffix("")).replace("/", ".") for p in SOURCE.rglob("*.py")
    }
    assert {f.removesuffix(".__init__") for f in files} - {"__init__"} == set(FLOW)


@pytest.mark.parametrize("name", FLOW)
def test_imports_run_one_way(name):
    assert imports(name) <= set(FLOW[: FLOW.index(name)])


@pytest.mark.parametrize(
    "name",
    [
        *("methods.cam", "methods.gradient", "heatmap", "render", "contact_sheet", "explanation"),
        *(n for n in FLOW if n.startswith(("regions", "faces", "report"))),
    ],
)
def test_what_never_sees_a_model(name):
    models = {"modules", "taps", "layers", "explain", "checks", "derivatives"}
    assert not imports(name) & models
    path = SOURCE / f"{name.replace('.', '/')}.py"
    path = path if path.exists() else SOURCE / name / "__init__.py"
    names = {
        a.name
        for n in ast.walk(ast.parse(path.read_text()))
        if isinstance(n, ast.ImportFrom)
        for a in n.names
    }
    assert "nn" not in names


@pytest.mark.parametrize(
    ("word", "only"), [("register_", "taps.py"), ("TorchFunctionMode", "rectifiers.py")]
)
def test_one_file_hooks_and_one_intercepts(word, only):
    assert [path.name for path in SOURCE.rglob("*.py") if word in path.read_text()] == [only]


def test_importing_loads_nothing_optional():
    script = "import json, sys, camlens; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(run.stdout)}
    assert not loaded & {
        *("matplotlib", "cv2", "torchvision", "lightning", "safetensors", "PIL"),
        *("pandas", "pyarrow", "scipy", "pooch", "mediapipe"),
        *("typer", "rich", "ray"),
    }


def test_importing_loads_no_sub_package_before_it_is_used():
    script = """
import sys, camlens
names = ("dataset", "faces", "faithfulness", "loading", "regions", "report")
assert not [name for name in names if f"camlens.{name}" in sys.modules]
assert set(names) <= set(dir(camlens))
for name in names:
    assert getattr(camlens, name) is sys.modules[f"camlens.{name}"]
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_public_names_exist():
    import camlens

    assert sorted(camlens.__all__) == camlens.__all__
    for name in camlens.__all__:
        assert hasattr(camlens, name)
    with pytest.raises(AttributeError, match="module 'camlens' has no attribute 'region'"):
        _ = camlens.region

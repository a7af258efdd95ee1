"""One file registers hooks, one intercepts calls, and importing the package is cheap.

Which module may import which is in ``pyproject.toml`` (import-linter), checked by ``make lint``.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "camlens"


@pytest.mark.parametrize(
    ("word", "only"),
    [
        ("RemovableHandle", ["probe/hooks.py"]),
        ("TorchFunctionMode", ["intercept/modes.py"]),
    ],
)
def test_one_file_hooks_and_one_intercepts(word, only):
    found = [path for path in SOURCE.rglob("*.py") if word in path.read_text()]
    assert [str(path.relative_to(SOURCE)) for path in found] == only


@pytest.mark.slow
def test_importing_loads_nothing_optional_and_no_sub_package_before_it_is_used():
    script = """
import json, sys, camlens
print(json.dumps(sorted(sys.modules)))
names = ("dataset", "faces", "faithfulness", "loading", "regions", "report", "testing")
assert not [name for name in names if f"camlens.{name}" in sys.modules]
assert set(names) <= set(dir(camlens))
for name in names:
    assert getattr(camlens, name) is sys.modules[f"camlens.{name}"]
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(run.stdout)}
    assert not loaded & {
        *("matplotlib", "cv2", "torchvision", "lightning", "safetensors", "PIL"),
        *("pandas", "pyarrow", "scipy", "pooch", "mediapipe"),
        *("typer", "rich", "ray"),
    }


def test_the_public_names_exist():
    import camlens

    assert len(set(camlens.__all__)) == len(camlens.__all__)
    for name in camlens.__all__:
        assert hasattr(camlens, name)
    with pytest.raises(AttributeError, match="module 'camlens' has no attribute 'region'"):
        _ = camlens.region

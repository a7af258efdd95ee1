"""The worked example of CONTRIBUTING.md: a method is two files."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_method_is_added_in_two_files(tmp_path):
    package = tmp_path / "camlens"
    shutil.copytree(ROOT / "src" / "camlens", package)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    function, explainer = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for name, code in (("methods/cam.py", function), ("explainers/cams.py", explainer)):
        path = package / name
        path.write_text(f"{path.read_text()}\n\n{code}")
    script = """
import json, torch, camlens
from camlens.cli.methods import all_methods
from torch import nn
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
images = torch.rand(2, 3, 8, 8)
raw = camlens.PositiveGradCAM(net, "1")(images, targets="all").raw
print(json.dumps([camlens.__file__, "PositiveGradCAM" in all_methods(), list(raw.shape)]))
"""
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    file, listed, shape = json.loads(run.stdout)
    assert file == str(package / "__init__.py")
    assert listed
    assert shape == [2, 2, 6, 6]

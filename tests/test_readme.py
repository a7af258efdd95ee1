"""The README's ten lines, run as they stand but for the download and the photograph's name."""

import re
from pathlib import Path

import matplotlib.cbook
import matplotlib.image

README = Path(__file__).parents[1] / "README.md"


def test_the_ten_lines_run(tmp_path):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
    photo = str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    for said, meant in {
        "weights=ResNet50_Weights.DEFAULT": "weights=None",
        '"photo.jpg"': repr(photo),
        '"heatmap.png"': repr(str(tmp_path / "heatmap.png")),
    }.items():
        assert said in code
        code = code.replace(said, meant)
    names = {}
    exec(code, names)
    assert names["explanation"].grid == (7, 7)
    assert names["explanation"].layers == ("layer4",)
    sheet = matplotlib.image.imread(tmp_path / "heatmap.png")
    assert sheet.shape[0] >= 224
    assert sheet.std() > 0.1

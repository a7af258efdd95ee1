"""Contact sheets, checked cell by cell."""

import io

import matplotlib.image
import matplotlib.pyplot as plt
import pytest
import torch

from camlens import sheet


def test_sheet_puts_every_picture_in_its_cell():
    colours = torch.tensor([[10, 60, 110], [160, 210, 250]], dtype=torch.uint8)
    pictures = colours.view(2, 3, 1, 1, 1).expand(2, 3, 3, 20, 30)
    figure = sheet(pictures, rows=["a", "b"], columns=["x", "y\nz", "w"], title="t", scale=2)
    drawn = figure.axes[0].images[0].get_array()
    assert drawn.shape == (42, 94, 3)
    for row in range(2):
        for column in range(3):
            cell = drawn[row * 22 : row * 22 + 20, column * 32 : column * 32 + 30]
            assert (cell == int(colours[row, column])).all()
    assert [text.get_text() for text in figure.axes[0].texts] == ["x", "y\nz", "w", "a", "b"]
    width, height = figure.get_size_inches() * 100
    box = figure.axes[0].get_position()
    assert (round(box.width * width), round(box.height * height)) == (188, 84)


def test_bad_sheets():
    with pytest.raises(ValueError, match="uint8, got"):
        sheet(torch.zeros(1, 1, 3, 4, 4))
    with pytest.raises(ValueError, match="expected 2 column labels, got 1"):
        sheet(torch.zeros(1, 2, 3, 4, 4, dtype=torch.uint8), columns=["only"])
    with pytest.raises(ValueError, match="expected a scale > 0"):
        sheet(torch.zeros(1, 1, 3, 4, 4, dtype=torch.uint8), scale=0)


def test_sheets_show_themselves():
    figure = sheet(torch.randint(0, 256, (1, 2, 3, 20, 30), dtype=torch.uint8), scale=2)
    picture = matplotlib.image.imread(io.BytesIO(figure._repr_png_()))
    width, height = figure.get_size_inches() * 100
    assert picture.shape == (round(height), round(width), 4)
    assert plt.get_fignums() == []

"""Tables that print shows."""

import math

import pytest

from camlens.render.text_tables import text_table


def test_columns_are_as_wide_as_their_cells():
    rows = [["a", -1.005, "yes"], ["long name", 12.0, ""], ["b", math.nan, "no"]]
    assert text_table(["what", "x", "told"], rows, missing="absent").split("\n") == [
        "what            x  told",
        "a           -1.00  yes",
        "long name   12.00",
        "b          absent  no",
    ]


def test_a_table_without_rows_is_its_header():
    assert text_table(["region", "density"], []) == "region  density"


@pytest.mark.parametrize(("count", "rest"), [(24, []), (25, ["and 1 more"])])
def test_long_tables_are_cut(count, rest):
    lines = text_table(["n"], [[float(i)] for i in range(count)]).split("\n")
    assert lines[1:25] == [f"{i:5.2f}" for i in range(24)]
    assert lines[25:] == rest

"""Tables that a notebook shows: what is in them, and what is left out."""

import math

import pytest

from camlens.render.html_tables import html_table

from ..html_tables import Table


def test_numbers_are_rounded_and_nan_has_a_word():
    table = Table(html_table("c", ["a", "b"], [["x", 0.125], ["y", math.nan]], missing="none"))
    assert table.caption == "c"
    assert table.rows == [["a", "b"], ["x", "0.12"], ["y", "none"]]


def test_text_is_escaped():
    source = html_table("<c>", ["a & b"], [["<script>"]], missing="")
    assert "<script>" not in source
    table = Table(source)
    assert (table.caption, table.rows) == ("<c>", [["a & b"], ["<script>"]])


def test_rows_are_emphasized():
    table = Table(html_table("", ["a", "b"], [["x", 1.0], ["y", 2.0]], bold=[1]))
    assert set(table.bold) == {2}  # the header is row 0


@pytest.mark.parametrize(("count", "shown"), [(60, 60), (61, 61), (200, 61)])
def test_long_tables_say_what_is_left_out(count, shown):
    rows = Table(html_table("", ["a"], [[float(i)] for i in range(count)])).rows[1:]
    assert len(rows) == shown
    assert rows[59] == ["59.00"]
    if count > 60:
        assert rows[60] == [f"and {count - 60} more"]

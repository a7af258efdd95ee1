"""Names that stay in their folder, and files that are whole."""

import pytest

from camlens.cli.output_folder import Names, prepare


@pytest.mark.parametrize(
    ("photo", "name"),
    [
        ("a/cat.jpg", "cat"),
        ("../../etc/passwd", "passwd"),
        ("..", "photo"),
        (".hidden.png", "hidden"),
        ("--out.png", "--out".strip("-")),
        ("a b\n\x1b[31m<script>.png", "a_b___31m_script"),
        ("caf\u00e9 \u65e5\u672c.png", "caf\u00e9_\u65e5\u672c"),
        ("right\u202eto left.png", "right_to_left"),
        ("\udcff.png", "photo"),
        ("x" * 300 + ".png", "x" * 100),
        ("\u00e9" * 300 + ".png", "\u00e9" * 50),
        ("archive.tar.gz", "archive.tar"),
    ],
)
def test_names(photo, name):
    assert Names().of(photo) == name


def test_each_name_is_given_once():
    names = Names()
    got = [names.of(p) for p in ("a/x.png", "b/x.jpg", "X.gif", "x-2.png", "c/x.png")]
    assert got == ["x", "x-2", "X-3", "x-2-2", "x-4"]


def test_prepare(tmp_path):
    prepare(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            NotADirectoryError, match=r"is a file: choose another folder with --out"
        ):
            prepare(path)

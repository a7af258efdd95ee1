"""Format numbers and names for the page."""

from __future__ import annotations

from collections.abc import Sequence

# First-strong isolate and its end: a name in a right-to-left script, or with bidirectional control
# characters, does not reorder the words next to it.
_ISOLATE = "\u2068{}\u2069"


def name(text: str) -> str:
    """Isolate the name of a class, region or file for use inside a sentence.

    Example:
        >>> name("happy") == "\u2068happy\u2069"
        True
    """
    return _ISOLATE.format(text)


def listed(names: Sequence[str]) -> str:
    """Join names for a sentence: "a, b and c".

    Example:
        >>> listed(["a", "b", "c"]) == "\u2068a\u2069, \u2068b\u2069 and \u2068c\u2069"
        True
    """
    *others, last = [name(one) for one in names]
    return f"{', '.join(others)} and {last}" if others else last


#: Methods whose maps hardly depend on the explained class: see docs/limits.rst.
_WHATEVER_CLASS = ("AttentionRollout", "Deconvnet", "EigenCAM", "GuidedBackprop")


def class_caveat(methods: Sequence[str]) -> str:
    """Return a caveat about those methods whose maps hardly depend on the class, if any.

    Args:
        methods: names of methods, each perhaps followed by its layers.

    Example:
        >>> class_caveat(["GradCAM", "EigenCAM at layer4"])
        'the maps of EigenCAM hardly depend on the class, so they do not say why it is this class'
        >>> class_caveat(["GradCAM"])
        ''
    """
    names = dict.fromkeys(name.split(" at ")[0] for name in methods)
    found = " and ".join(name for name in names if name in _WHATEVER_CLASS)
    if not found:
        return ""
    return (
        f"the maps of {found} hardly depend on the class, so they do not say why it is this class"
    )


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun in the singular or plural.

    Example:
        >>> count(1, "image"), count(3589, "image"), count(2, "class", "classes")
        ('1 image', '3,589 images', '2 classes')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def percent(part: int, whole: int) -> str:
    """Format a share in percent; only exact values are shown as 0% and 100%.

    Example:
        >>> percent(1, 3), percent(1, 100_000), percent(99_999, 100_000), percent(0, 0)
        ('33.3%', 'under 0.1%', 'over 99.9%', 'none')
    """
    if not whole:
        return "none"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "under 0.1%"
    if 99.9 < share < 100:
        return "over 99.9%"
    return f"{share:.1f}%".replace(".0%", "%")


def detail(layer: str, grids: Sequence[str]) -> str:
    """Describe the layer and the grids of maps.

    Args:
        layer: the layer's name; empty for input gradients.
        grids: the maps' grids, from the smallest to the largest.

    Example:
        >>> detail("features.34", ["14x14"]), detail("", ["48x48"])
        ('features.34, grid 14x14', 'grid 48x48')
        >>> detail("layer4", ["7x7", "7x9", "12x9"])
        'layer4, grids from 7x7 to 12x9'
    """
    one = len(grids) == 1
    size = f"grid {grids[0]}" if one else f"grids from {grids[0]} to {grids[-1]}"
    return f"{layer}, {size}" if layer else size


def spreadsheet(value: object) -> object:
    """Quote text that a spreadsheet could take for a formula.

    Example:
        >>> spreadsheet("=1+1"), spreadsheet("-x"), spreadsheet("mouth"), spreadsheet(-0.5)
        ("'=1+1", "'-x", 'mouth', -0.5)
    """
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value

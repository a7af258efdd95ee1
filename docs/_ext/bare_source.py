"""The directive ``bare-source``: functions as they stand in the code, without their docstrings.

A theory page has the paper's equation; beside it belongs the line of code that computes it, with
its comments. ``literalinclude`` would repeat the docstring, which has the equation again.
"""

from __future__ import annotations

import ast
import importlib
import inspect

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class BareSource(SphinxDirective):
    """Show ``.. bare-source:: camlens.methods.cam`` with the names of functions as its content."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return one code block for all of the functions."""
        module = importlib.import_module(self.arguments[0])
        file = inspect.getsourcefile(module)
        if file is None:
            raise self.error(f"{self.arguments[0]} has no source")
        self.env.note_dependency(file)
        parts = [bare(getattr(module, name.strip())) for name in self.content]
        text = "\n\n\n".join(parts)
        block = nodes.literal_block(text, text, language="python")
        self.set_source_info(block)
        return [block]


def bare(function: object) -> str:
    """Return a function's or class's source without its docstrings.

    Example:
        >>> from camlens.methods import cam
        >>> print(bare(cam.layer_cam))
        def layer_cam(activations: Activations, gradients: Gradients) -> Maps:
            return hires_cam(activations, gradients.relu())
    """
    source = inspect.getsource(function)  # type: ignore[arg-type]
    lines = source.splitlines()
    kinds = (ast.FunctionDef, ast.ClassDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            text = node.body[0]
            for index in range(text.lineno - 1, text.end_lineno or text.lineno):
                lines[index] = "\0"
    return "\n".join(line for line in lines if line != "\0").rstrip()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("bare-source", BareSource)
    return {"parallel_read_safe": True}

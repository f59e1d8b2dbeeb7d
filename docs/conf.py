"""How Sphinx makes the site: `make site`. It reads the pages of the repository where they are, with their links."""

import ast
import re
import textwrap
from importlib import import_module
from pathlib import Path

from sphinx.application import Sphinx

project = "penstock"
copyright = "the penstock maintainers, MIT licence"  # noqa: A001 -- Sphinx's name
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "docs/**.md",
    "examples/README.md",
    "tests/adversarial/README.md",
]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

suppress_warnings = ["ref.python"]  # a word in backticks may be a name of several classes: then it links to one of them
default_role = "py:obj"  # `Stream` in a docstring links to it; what is no name of penstock is code
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
add_module_names = False
python_maximum_signature_line_length = 300
napoleon_use_ivar = True

html_theme = "furo"
html_title = "penstock"
html_copy_source = False
html_show_sphinx = False
pygments_style = "tango"
pygments_dark_style = "monokai"
html_static_path = ["_static"]
html_favicon = "_static/penstock.svg"
html_css_files = ["site.css"]

HOMES = [
    "penstock",
    *(f"penstock.{each}" for each in ("tasks", "durable", "engines", "sinks", "flow", "workflows", "testing")),
]
"""The public modules. A name that several export is described with the first of them."""

EXAMPLE = re.compile(r"^Examples?:$")
BLOCK = " " * 4


def language_of(lines: list[str]) -> str:
    """Of a block of code."""
    try:
        ast.parse(textwrap.dedent("\n".join(lines)))
    except SyntaxError:
        return "text"
    return "python"


def bases_of(kind: type) -> list[str]:
    """Those that say something to a reader: a failure's, and penstock's own."""
    return [
        base.__name__
        for base in kind.__bases__
        if issubclass(base, BaseException) or base.__module__.startswith("penstock")
    ]


def markdown(_app: Sphinx, what: str, _name: str, described: type, _options: object, lines: list[str]) -> None:
    """Docstrings are Markdown with Google's sections: what is indented after an empty line, and examples, is code."""
    if what in {"property", "attribute", "data"} and lines:  # napoleon would take what stands before a colon for a type
        first = re.sub("`[^`]*`", lambda code: f"`{code[0]}`" if ":" in code[0] else code[0], lines[0])
        lines[:1] = first.replace(": ", ":\n", 1).splitlines()
    found: list[str] = []
    if what in {"class", "exception"} and (bases := bases_of(described)):
        found += ["Is " + ", ".join(f"`{base}`" for base in bases) + ".", ""]
    rest = list(lines)
    while rest:
        line = rest.pop(0)
        is_example = EXAMPLE.match(line)
        if is_example or (line.startswith(BLOCK) and found and not found[-1].strip()):
            block = [] if is_example else [line]
            while rest and (rest[0].startswith(BLOCK) or not rest[0]):
                block.append(rest.pop(0))
            found += [".. rubric:: Example", ""] if is_example else []
            found += [f".. code-block:: {language_of(block)}", "", *block, ""]
        else:
            found.append(line)
    lines[:] = found


def skip(app: Sphinx, what: str, name: str, member: object, _skip: bool, _options: object) -> bool | None:  # noqa: FBT001 -- Sphinx calls it
    """Leave out what an earlier module has described already."""
    if what != "module":
        return None
    here = app.env.current_document.autodoc_module
    earlier = map(import_module, HOMES[: HOMES.index(here)])
    return any(name in each.__all__ and getattr(each, name) is member for each in earlier) or None


def start_at_the_index(app: Sphinx, error: Exception | None) -> None:
    """The site begins where its index is."""
    if error is None:
        to = f"{root_doc}.html"
        icon = f'<link rel="icon" href="{app.config.html_favicon}">'  # a browser would ask for one that is not there
        head = f'<!doctype html><title>penstock</title>{icon}<meta http-equiv="refresh" content="0; url={to}">'
        Path(app.outdir, "index.html").write_text(f'{head}<a href="{to}">penstock</a>\n')


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    app.connect("autodoc-process-docstring", markdown, priority=100)  # before napoleon
    app.connect("autodoc-skip-member", skip)
    app.connect("build-finished", start_at_the_index)

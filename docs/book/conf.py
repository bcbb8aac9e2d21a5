"""Sphinx's settings for the book. Nothing may come from the network when a page is read."""

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
from docutils import nodes

sys.path.insert(0, str(Path(__file__).parent))
from interactive import place_figures  # noqa: E402
from predictions import ask_for_guesses, fold  # noqa: E402

project = "Batch normalization from scratch"
html_title = project
language = "en"

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
include_patterns = ["index.md", "chapters/*.ipynb", "chapters/solutions/*.ipynb", "docs/*.md"]
include_patterns += ["docs/teacher/*.md"]
include_patterns += ["docs/reference/*.rst"]  # which autosummary writes, from docs/reference.md
exclude_patterns = ["gluon_bn", "benchmarks", "tests"]

nb_execution_mode = "off"  # `make notebooks` did it
nb_ipywidgets_js = {}  # require.js and widgets would come from a CDN
nb_merge_streams = True
nb_code_prompt_show = "Predict, then open the output"
nb_code_prompt_hide = "Close the output"
copybutton_exclude = ".linenos, .gp"

# The reference: a page a module, from the docstrings.
templates_path = [str(Path(__file__).parent / "templates")]
default_role = "py:obj"  # `name` in a docstring leads to what is called so, if anything is
add_module_names = False
autodoc_inherit_docstrings = False  # those of Gluon's Block say nothing of ours
autodoc_typehints = "none"  # docstrings say more: the shapes
numpydoc_show_class_members = False  # they follow

html_theme = "sphinx_book_theme"
html_theme_options = {
    "use_download_button": True,
    "use_fullscreen_button": False,
    "navbar_persistent": [],  # no second field to search beside the one of the sidebar
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "toc_title": "On this page",
    "footer_content_items": ["extra-footer"],
    "extra_footer": "Text under CC BY 4.0, code under Apache 2.0.",
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_context = {"default_mode": "auto"}  # without it the first page complains in the console
html_use_index = False
html_domain_indices = False
html_static_path = ["book.css", "book.js", "interactive.css", "interactive.js"]
html_css_files = ["book.css", "interactive.css"]
html_js_files = ["book.js", "interactive.js"]
html_show_search_summary = False  # it fetches pages, which a browser refuses for file://
html_search_language = "en"

# SVG needs no font files; some browsers refuse those to a page from disk.
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"tex": {"processEscapes": False}, "options": {"enableMenu": False}}


def copy_mathjax(app, exception):
    """MathJax out of the package sphinx-mathjax-offline: 3 of its 24 MB are enough.

    The package is a Sphinx extension too, but it copies everything and chooses the other output.
    """
    if exception is None:
        package = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent
        source, target = package / "static/mathjax", Path(app.outdir, "_static/mathjax")
        for part in ("tex-svg.js", "input/tex/extensions"):
            target.joinpath(part).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (source / part).is_dir() else shutil.copy
            copy(source / part, target / part)


def notebooks_as_scripts(app, exception):
    """What book.js loads to save a notebook from a page that was opened from disk."""
    for notebook in Path(app.outdir, "_sources").rglob("*.ipynb"):
        text = json.dumps(notebook.read_text(encoding="utf-8"))
        notebook.with_name(f"{notebook.name}.js").write_text(f"saveNotebook({text});\n")


def drop_web_fonts(app, exception):
    """No fonts from files: browsers refuse them to a page from disk. Icons are drawn by a script.

    The theme of Python 3.9 and 3.10 asks for them all the same; the one of 3.11 does not.
    """
    if exception is None:
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            page.write_text(re.sub('<link rel="preload" as="font"[^>]*>', "", text), "utf-8")
        for style in Path(app.outdir, "_static", "vendor").rglob("*.css"):
            text = style.read_text(encoding="utf-8")
            style.write_text(re.sub("@font-face *{[^}]*}", "", text), "utf-8")


def mark_questions(app, doctree, docname):
    """Paragraphs that start with **Predict.** get a class, so that they stand out."""
    for paragraph in doctree.findall(nodes.paragraph):
        if paragraph.astext().startswith("Predict."):
            paragraph["classes"].append("predict")


def prepare_chapter(app, docname, content):
    """What answers a question of a chapter opens when it is asked for; figures to change."""
    if docname.startswith("chapters/") and "/solutions/" not in docname:
        name = Path(docname).name
        notebook = fold(nbformat.reads(content[0], as_version=4))
        notebook = place_figures(ask_for_guesses(notebook, name), name)
        content[0] = nbformat.writes(notebook)


def setup(app):
    app.connect("source-read", prepare_chapter)
    app.connect("doctree-resolved", mark_questions)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", notebooks_as_scripts)
    app.connect("build-finished", drop_web_fonts)

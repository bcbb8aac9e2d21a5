"""Pages that Sphinx makes without a folder of its own: for the slides and for the formula sheet.

Like the web site (website.py) they have MathJax on board and ask nothing of the network.
"""

import shutil
import tempfile
from pathlib import Path

from conf import copy_mathjax, mark_questions, mathjax3_config, mathjax_path
from sphinx.application import Sphinx

SETTINGS = {  # in place of a conf.py
    "project": "Batch normalization from scratch",
    "myst_enable_extensions": ["dollarmath"],
    "mathjax_path": mathjax_path,
    "mathjax3_config": mathjax3_config,
    "html_copy_source": False,
}


def build(sources, target, builder, settings, strict=False):
    """Make pages of `sources`, texts by their file names; write them into the folder `target`.

    strict : a warning is a failure. Return Sphinx's exit status. A failure leaves what was there.
    """
    with tempfile.TemporaryDirectory() as place:
        source, site = Path(place).resolve() / "source", Path(place, "site")
        source.mkdir()
        for name, text in sources.items():
            (source / name).write_text(text, encoding="utf-8")
        app = Sphinx(
            source,
            None,
            site,
            Path(place, "doctrees"),
            builder,
            {**SETTINGS, **settings},
            status=None,
            warningiserror=strict,
            keep_going=True,
        )
        app.connect("doctree-resolved", mark_questions)
        app.connect("build-finished", copy_mathjax)
        app.build()
        if not app.statuscode:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(site, target)
        return app.statuscode

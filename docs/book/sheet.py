"""The formula sheet: `make sheet`, which calls `sheet.py sheet`.

docs/sheet.md says which equations and tables stand on it; they come from the chapters and from
docs/conventions.md. The web site has the sheet as a page. Here it becomes a page of its own, two
columns on A4, and, where there is a Chromium or a Chrome, a PDF.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import offline
from equations import equations, in_rows, table
from notebooks import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSERS += ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",)
SETTINGS = {  # Sphinx's
    "extensions": ["myst_parser", "sphinx.ext.mathjax"],
    "html_theme": "basic",
    "html_theme_options": {"nosidebar": "true"},
    "html_static_path": [str(Path(__file__).with_name("sheet.css"))],
    "html_css_files": ["sheet.css"],
    "html_use_index": False,
}
FETCHED = re.compile(r"^@(.+)@$", flags=re.M)


def sheet():
    """docs/sheet.md with its equations and tables."""
    known = equations()

    def fetch(match):
        kind, _, what = match[1].partition(" ")
        if kind == "table":
            page, first, *columns = what.split(": ")
            return table(page, first, columns and columns[0].split("; "))
        numbers = match[1].rstrip("/").split()
        latex = " \\qquad ".join(known[number] for number in numbers)
        latex = in_rows(latex) if match[1].endswith("/") else latex
        return f"$${latex} \\tag{{{', '.join(numbers)}}}$$"

    return FETCHED.sub(fetch, (ROOT / "docs" / "sheet.md").read_text("utf-8"))


def build(target):
    """Write the page into the folder `target`, which is replaced. Return Sphinx's exit status."""
    page = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", sheet())  # nothing to click on paper
    return offline.build({"index.md": page}, target, "html", SETTINGS)


def print_to_pdf(page, pdf):
    """Print an HTML file; return whether there is a browser that can."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return False
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--disable-gpu", f"--user-data-dir={profile}"]
        command += [
            "--no-pdf-header-footer",
            "--virtual-time-budget=20000",
        ]  # until MathJax is done
        command += ["--no-sandbox"] if os.geteuid() == 0 else []
        command += [f"--print-to-pdf={pdf.resolve()}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "sheet")
    folder = parser.parse_args().folder
    status = build(folder)
    if status:
        return status
    page, pdf = folder / "index.html", folder / "sheet.pdf"
    if print_to_pdf(page, pdf):
        print(f"The sheet is {pdf}, and {page} for a browser.")
    else:
        print(f"There is no Chromium or Chrome here to make a PDF. Open {page} in a browser and ")
        print("print it: A4, the margins of the page. It fits on one page and needs no network.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

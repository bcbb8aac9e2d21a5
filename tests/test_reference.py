"""The reference: every public name says what it takes, returns and raises; its example runs.

The pages are those that docs/reference.md lists. numpydoc, which renders them, judges the
docstrings; doctest runs the examples.
"""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from numpydoc.validate import validate

import gluon_bn
from gluon_bn import kernels

ROOT = Path(__file__).parent.parent
MODULES = re.findall(r"^ +(gluon_bn[\w.]+)$", (ROOT / "docs/reference.md").read_text("utf-8"), re.M)
# No such docstring; sections unknown or out of order; parameters that are missing, not there or
# in another order; no Returns; no example.
ERRORS = {"GL06", "GL07", "GL08", "PR01", "PR02", "PR03", "RT01", "EX01"}


def public(module):
    """name -> function or class: those a page shows."""
    module = importlib.import_module(module)
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    found = {name: getattr(module, name) for name in names}
    return {name: value for name, value in found.items() if callable(value)}


def says_all(value):
    """A function of one statement, with a docstring of one line."""
    return inspect.isfunction(value) and len(inspect.getsource(value).splitlines()) <= 3


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_say_what_is_taken_and_returned_and_show_it(module):
    problems = []
    for name, value in public(module).items():
        address = f"{value.__module__}.{value.__qualname__}"
        assert inspect.getdoc(value), address
        errors = dict(validate(address)["errors"])
        if re.search(r"\bas for `", inspect.getdoc(value)):  # it leans on another's docstring
            errors.pop("RT01", None)
        if inspect.isclass(value) and issubclass(value, Exception):
            errors.pop("EX01", None)
        for code, message in errors.items():
            if code in ERRORS and not says_all(value):
                problems.append(f"{module}: {name}: {code} {message}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_run(module):
    """With what docs/reference.md takes for granted."""
    if module.startswith("gluon_bn.kernels.") and kernels.why_not(module.split(".")[2]):
        pytest.skip(kernels.why_not(module.split(".")[2]))
    given = {"mx": mx, "np": np, "gluon_bn": gluon_bn}
    given.update(autograd=autograd, gluon=gluon, nd=nd, nn=gluon.nn)
    given.update(
        (m.split(".")[1], importlib.import_module(m)) for m in MODULES if m.count(".") == 1
    )
    runner = doctest.DocTestRunner()
    for name, value in public(module).items():
        example = doctest.DocTestParser().get_doctest(
            inspect.getdoc(value) or "", dict(given), f"{module}.{name}", None, None
        )
        runner.run(example)
    assert not runner.summarize(verbose=False).failed


def test_type_checkers_find_the_hints_in_the_wheel(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert {"gluon_bn/py.typed", "gluon_bn/__init__.pyi"} <= set(wheel.namelist())


def test_type_checkers_are_told_of_the_names_of_the_package():
    told = re.findall(r" as (\w+)$", (ROOT / "gluon_bn/__init__.pyi").read_text("utf-8"), re.M)
    assert sorted(told) == gluon_bn.__all__

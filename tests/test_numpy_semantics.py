"""NumPy semantics (`npx.set_np()`), switched on before or after our first import: everything that
a training can be made of gives the numbers that it gives with `mx.nd`.

The kind of array is a switch of the whole process, and some things ask for it when they are
imported. So `numpy_semantics.py` runs in processes of its own.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import gluon_bn


def run(order):
    root = os.path.dirname(os.path.dirname(os.path.abspath(gluon_bn.__file__)))
    done = subprocess.run(
        [sys.executable, "-m", "tests.numpy_semantics", order],
        cwd=root,
        close_fds=False,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def expected():
    return run("legacy")


@pytest.mark.parametrize("order", ["before", "after", "reset"])
def test_everything(order, expected):
    found = run(order)
    assert found.keys() == expected.keys() and len(found) > 60
    for name, values in expected.items():
        np.testing.assert_allclose(
            np.array(found[name], float),
            np.array(values, float),
            rtol=1e-3,
            atol=1e-4,
            err_msg=name,
        )

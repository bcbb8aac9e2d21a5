"""MXNet 1.9.1 under NumPy 1.24 and later, and so under Python 3.12 and 3.13; and sooner there.

MXNet's last release is older than these. Two things stand in its way, and both are mended at the
moment somebody imports MXNet, whoever that is:

* It imports about thirty names that NumPy has dropped since. They are given back, each only where
  this NumPy does not have it. (`distutils`, which Python 3.12 dropped, comes from setuptools.)
* It hands a shape to its C++ side as `str(shape)`, in which NumPy 2 writes `np.int64(3)` for a 3,
  and the C++ side cannot read that. There the numbers are written as numbers again.

A third costs time, whatever the NumPy: MXNet imports `scipy.stats`, a fifth of its own import, for
its tests and for quantization by entropy. It gets it when it first asks it for something.

`mxnet_compat.pth` is installed beside this file and has Python run it at every start; all that
happens then is that one finder is put in front of `sys.meta_path`. To take the mechanism out,
delete this folder and its two lines in pyproject.toml.
"""

import contextlib
import sys


def install():
    """Wait for the import of MXNet. Once: a second call, or one after that import, does nothing."""
    if "mxnet" not in sys.modules and not any(type(f) is _Finder for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds nothing itself: it asks the others, and wraps the loader of whoever finds MXNet."""

    asking = False

    def find_spec(self, name, path=None, target=None):
        if name != "mxnet" or self.asking:
            return None
        from importlib.util import find_spec

        self.asking = True
        try:
            spec = find_spec(name)
        finally:
            self.asking = False
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module):
                give_names_back()
                with statistics_later():
                    run(module)
                write_numbers_as_numbers()
                sys.meta_path.remove(self)

            spec.loader.exec_module = exec_module
        return spec


def _version(numpy):
    return tuple(int(part) for part in numpy.__version__.split(".")[:2])


def give_names_back():
    """Set in NumPy what MXNet 1.9.1 imports from it and this version does not have."""
    import warnings

    import numpy

    if _version(numpy) < (1, 24):
        return
    inf, nan = float("inf"), float("nan")
    names = {
        "bool": bool,  # in NumPy 2 the scalar type bool_ has this name again
        "PZERO": 0.0,
        "NZERO": -0.0,
        "PINF": inf,
        "NINF": -inf,
        "Inf": inf,
        "Infinity": inf,
        "infty": inf,
        "NAN": nan,
        "NaN": nan,
        "float_": numpy.float64,
        "product": numpy.prod,
        "cumproduct": numpy.cumprod,
        "alltrue": numpy.all,
        "sometrue": numpy.any,
        "round_": numpy.round,
        "row_stack": numpy.vstack,
        "in1d": lambda ar1, *args, **kwargs: numpy.isin(numpy.ravel(ar1), *args, **kwargs),
        "msort": lambda a: numpy.sort(a, axis=0),
        "trapz": getattr(numpy, "trapezoid", None),
        "compat": type("compat", (), {"basestring": str}),  # asked by mx.np.pad
        # Finance. MXNet passes the names on and never calls them.
        **dict.fromkeys(("fv", "ipmt", "irr", "mirr", "nper", "npv", "pmt", "ppmt", "pv", "rate")),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of some names when it is asked for them
        missing = [name for name in names if not hasattr(numpy, name)]
    for name in missing:
        setattr(numpy, name, names[name])


class _Later:
    """`scipy.stats`, imported when somebody wants something of it."""

    def __getattr__(self, name):
        import scipy.stats

        return getattr(scipy.stats, name)


@contextlib.contextmanager
def statistics_later():
    """In here `scipy.stats` cannot be imported, as if there were no SciPy; MXNet does without it.
    Then the two modules that tried are handed it, if there is one, to be imported later."""
    if "scipy.stats" in sys.modules:  # nothing to win
        yield
        return
    sys.modules["scipy.stats"] = None
    try:
        yield
    finally:
        sys.modules.pop("scipy.stats", None)
    if "scipy" in sys.modules:
        for name, alias in (("mxnet.test_utils", "ss"), ("mxnet.contrib.quantization", "stats")):
            if name in sys.modules:
                setattr(sys.modules[name], alias, _Later())


def write_numbers_as_numbers():
    """Under NumPy 2, replace `str` in the three modules that write the options of operators."""
    import numpy

    if _version(numpy) < (2, 0):
        return

    def written(value):
        if type(value) in (tuple, list):
            inner = ", ".join(map(written_inside, value))
            if type(value) is list:
                return f"[{inner}]"
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        return str(value)

    def written_inside(value):
        if isinstance(value, numpy.generic):
            return repr(value.item())
        return written(value) if type(value) in (tuple, list) else repr(value)

    class IsText(type):
        def __instancecheck__(cls, value):
            return isinstance(value, str)

    class Text(metaclass=IsText):  # for `str(value)` and for `isinstance(value, str)`
        def __new__(cls, value=""):
            return written(value)

    for name in ("mxnet._ctypes.ndarray", "mxnet._ctypes.symbol", "mxnet.symbol.symbol"):
        if name in sys.modules:
            sys.modules[name].str = Text


install()

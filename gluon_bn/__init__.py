"""Batch normalization, built from scratch in MXNet Gluon.

The mathematics is in `gluon_bn.functional`, the layers in `gluon_bn.blocks`, `conditional`,
`relatives` and `weight_norms`, other bodies of `batch_norm` in `gluon_bn.kernels`. Importing this
package changes no global state, and is quick: a module is loaded, and MXNet with it, when you first
ask for something in it.
"""

import importlib
import pkgutil

try:  # already done, unless the package was installed after this Python was started
    import mxnet_compat  # noqa: F401
except ImportError:
    pass  # a checkout that nobody installed

__version__ = "0.1.0"

NO_MXNET = (
    "MXNet is not installed. Its last release asks for NumPy 1, so under Python 3.13 it "
    "has to be installed by itself: pip install --no-deps mxnet==1.9.1"
)

_NAMES = {
    "functional": ("batch_norm", "moments", "normalize"),
    "blocks": ("BatchNorm",),
    "conditional": ("ConditionalBatchNorm",),
    "relatives": (
        "BatchRenorm",
        "GhostBatchNorm",
        "GroupNorm",
        "InstanceNorm",
        "LayerNorm",
        "PixelNorm",
        "RMSNorm",
    ),
    "weight_norms": ("SpectralNorm", "WeightNorm"),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name):  # what Python calls for a name that is not here yet (PEP 562)
    if name not in _MODULE_OF and name not in _modules():
        raise AttributeError(f"module 'gluon_bn' has no attribute {name!r}")
    try:
        value = importlib.import_module(f"gluon_bn.{_MODULE_OF.get(name, name)}")
    except ModuleNotFoundError as error:
        if error.name == "mxnet":
            raise ModuleNotFoundError(NO_MXNET, name="mxnet") from None
        raise
    if name in _MODULE_OF:
        value = getattr(value, name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__, *_modules()})


def _modules():
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return [name for name in names if not name.startswith("_")]

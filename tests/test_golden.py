"""Our layers against recordings of TensorFlow 1.15's `tf.contrib.layers.batch_norm`.

TensorFlow's names and ours:

| tf.contrib.layers.batch_norm              | here                                             |
|-------------------------------------------|--------------------------------------------------|
| decay=0.999                               | momentum (ours defaults to 0.9, as Gluon)        |
| epsilon=0.001                             | epsilon (ours defaults to 1e-5, as Gluon)        |
| center=True                               | center                                           |
| scale=False                               | scale (ours defaults to True, as Gluon)          |
| activation_fn                             | activation                                       |
| param_initializers beta, gamma            | beta_initializer, gamma_initializer              |
| param_initializers moving_mean, ..variance| running_mean_initializer, running_variance_init..|
| is_training                               | autograd.record() / autograd.is_training()       |
| updates_collections                       | none: the statistics move in the forward pass    |
| batch_weights                             | sample_weight                                    |
| fused=True (running variance unbiased)    | unbiased=True                                    |
| fused=None (1.15: True for rank 2 and 4)  | unbiased=True for rank 2 and 4                   |
| data_format NHWC, NCHW                    | axis=-1, axis=1                                  |
| zero_debias_moving_mean                   | zero_debias                                      |
| renorm, renorm_decay                      | BatchRenorm, renorm_momentum                     |
| renorm_clipping rmin, rmax, dmax          | r_min, r_max, d_max                              |
| moving_mean, moving_variance              | running_mean, running_var                        |
| moving_mean/biased, moving_mean/local_step| running_mean_biased, num_batches (per channel)   |
| moving_stddev                             | running_stddev                                   |
| renorm_mean, renorm_stddev                | renorm_mean, renorm_stddev                       |
"""

import json
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd
from mxnet.gluon import nn

from gluon_bn import BatchNorm, BatchRenorm, kernels

FILES = sorted((Path(__file__).parent / "golden" / "tf_contrib_batch_norm").glob("*.npz"))
OURS = {
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "moving_stddev": "running_stddev",
    "moving_mean.biased": "running_mean_biased",
    "moving_mean.local_step": "num_batches",
}


def layer_for(options, rank, **more):
    """The layer that TensorFlow's options describe, for X of this rank."""
    fused = options.get("fused", False)
    if fused is None:  # left out: TensorFlow 1.15 fuses where it can
        fused = rank in (2, 4) and not options.get("weights") and not options.get("renorm")
    settings = {
        "momentum": options.get("decay", 0.999),
        "epsilon": options.get("epsilon", 0.001),
        "center": options.get("center", True),
        "scale": options.get("scale", False),
        "activation": options.get("activation"),
        "unbiased": fused,
        "zero_debias": options.get("zero_debias_moving_mean", False),
        "axis": 1 if options.get("data_format") == "NCHW" else -1,
    }
    names = {
        "beta": "beta",
        "gamma": "gamma",
        "moving_mean": "running_mean",
        "moving_variance": "running_variance",
    }
    for theirs, value in options.get("init", {}).items():
        settings[f"{names[theirs]}_initializer"] = mx.init.Constant(value)
    if not options.get("renorm"):
        return BatchNorm(**settings, **more)
    clip = options.get("clip", {})
    del settings["zero_debias"]
    return BatchRenorm(
        **settings,
        **more,
        renorm_momentum=options.get("renorm_decay", 0.99),
        r_min=clip.get("rmin"),
        r_max=clip.get("rmax"),
        d_max=clip.get("dmax"),
    )


def close(ours, theirs, what):
    np.testing.assert_allclose(
        ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max(), err_msg=what
    )


def test_the_recordings_are_here():
    assert len(FILES) == 19


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
@pytest.mark.parametrize("kernel", ["textbook", "auto"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_four_steps_and_a_prediction(path, kernel, hybridize):
    recorded = np.load(path)
    options = json.loads(str(recorded["options"]))
    layer = layer_for(options, recorded["x"][0].ndim, kernel=kernel)
    network = nn.HybridSequential() if hybridize and not options.get("weights") else None
    if network is not None:
        network.add(layer)
        network.hybridize()
    layer.initialize()
    net = network or layer
    for step, x in enumerate(recorded["x"]):
        X = nd.array(x)
        X.attach_grad()
        weights = [nd.array(recorded["batch_weights"][step])] if options.get("weights") else []
        with autograd.record():
            Y = net(X, *weights)
        Y.backward(nd.array(recorded["upstream"][step]))
        close(Y.asnumpy(), recorded["y_train"][step], f"y of step {step}")
        close(X.grad.asnumpy(), recorded["grad_x"][step], f"grad x of step {step}")
        for name in ("gamma", "beta"):
            if f"grad_{name}" in recorded:
                ours = getattr(layer, name).grad().asnumpy()
                close(ours, recorded[f"grad_{name}"][step], f"grad {name} of step {step}")
        for key in recorded.files:
            if key.startswith("var_after__"):
                name = key[len("var_after__") :]
                ours = getattr(layer, OURS.get(name, name)).data().asnumpy()
                close(
                    ours,
                    np.broadcast_to(recorded[key][step], ours.shape),
                    f"{name} after step {step}",
                )
    close(net(X).asnumpy(), recorded["y_infer_last_x"], "prediction")


@pytest.mark.parametrize(
    "name, tells",
    [
        ("tf115_dense_default", True),
        ("tf115_conv_default", True),
        ("tf115_zero_debias", True),
        ("tf115_rank3_default", False),
    ],
)
def test_the_default_of_115_is_fused(name, tells):
    """The recordings without `fused` tell the two variances apart: the biased one is not in them,
    except where the rank is 3."""
    recorded = np.load(FILES[0].with_name(name + ".npz"))
    options = json.loads(str(recorded["options"]))
    biased = layer_for({**options, "fused": False}, recorded["x"][0].ndim)
    biased.initialize()
    for x in recorded["x"]:
        with autograd.train_mode():
            biased(nd.array(x))
    ours, theirs = biased.running_var.data().asnumpy(), recorded["var_after__moving_variance"][-1]
    assert (np.abs(ours - theirs).max() > 1e-5) == tells


def test_available_kernels_are_what_auto_takes():
    assert "textbook" in kernels.available() and "analytic" in kernels.available()

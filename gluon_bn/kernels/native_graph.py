"""The `native` kernel in a hybridized network: a node of the graph, with no Python in the step.

How the node is told whether the network trains: `net.hybridize()` draws a graph once and replays
it in both modes, and MXNet tells an operator from outside nothing about them. Gluon's own BatchNorm
is told. So each graph has one of those, on a constant, as a signal (`_signal`). A batch of one
value is its own mean, so in training its output is beta exactly, here 2**66; in prediction it is
(2**66 - mean) / sqrt(variance) * 2**66 more, another number whatever the statistics are. Nothing is
random here, and nothing is learned. Our operator takes the signal as its sixth input, looks at the
last number, and hands the news on as the last number of its own second output, so that one signal
serves a whole network, from layer to layer.
"""

import itertools
import json

import mxnet as mx
from mxnet.contrib.amp import amp

from gluon_bn.kernels.native import ACTIVATIONS, operator, options_of

_NAME = "_gluon_bn_native"  # how the name of a node ends that knows the mode
_numbers = itertools.count()
OPTIONS = (  # those of a layer, besides epsilon
    "momentum axis unbiased center scale use_global_stats skip_nonfinite activation num_dims"
).split()


def symbol_of(layer, X, parameters):
    """A `BatchNorm` with its options, on symbols of either kind."""
    parameters = {name: s.as_nd_ndarray() for name, s in parameters.items()}
    options = {name: getattr(layer, name) for name in OPTIONS}
    Y = batch_norm_symbol(
        X.as_nd_ndarray(),
        **parameters,
        eps=layer.epsilon,
        vectors=True,
        workers=layer._channel.layer if layer._channel else 0,
        **options,
    )
    return Y.as_np_ndarray() if isinstance(X, mx.sym.np._Symbol) else Y


def batch_norm_symbol(
    X,
    gamma,
    beta,
    running_mean,
    running_var,
    *,
    eps,
    momentum,
    axis,
    unbiased=False,
    center=True,
    scale=True,
    use_global_stats=False,
    skip_nonfinite=True,
    activation=None,
    num_dims=None,
    workers=0,
    vectors=False,
):
    """The layer as a node of a hybridized network. It moves the running statistics itself, in
    training's forward pass.

    An operator stands before X, gamma and beta so that grad_req='add', and a gradient that MXNet
    adds in place, are honoured by one that is told of them. Before X it is a `reshape` to the same
    shape: it brings X from a convolution's own layout into the plain one, once for the forward and
    the backward pass, and costs nothing where X is plain and used nowhere else. Each gets a number
    of its own, or MXNet would merge those of several layers into one (its common expressions), and
    ours would meet.

    `vectors` promises that gamma and beta are (C,). They become (1, C): MXNet's print_summary reads
    the second axis of whatever enters an operator.
    """
    number = str(next(_numbers))
    own = {"__gluon_bn__": number}
    if amp._amp_initialized:  # as it does itself for an operator that it does not know
        X = mx.sym.amp_cast(X, dtype="float32")
    X = mx.sym.reshape(X, shape=(-2,), attr=own)
    gamma, beta = (
        mx.sym.reshape(a, shape=(1, -1), attr=own) if vectors else mx.sym.identity(a, attr=own)
        for a in (gamma, beta)
    )
    gamma = gamma if scale else mx.sym.ones_like(gamma)
    beta = beta if center else mx.sym.zeros_like(beta)
    inputs = [X, gamma, beta, running_mean, running_var]
    if use_global_stats:
        mode, name = "global", number + "_gluon_bn_global"
    else:
        mode, name = "graph", number + _NAME
        inputs.append(_signal(X, running_mean, running_var))
    inside = activation if activation in ACTIVATIONS else None
    options = options_of(
        mode, axis, eps, momentum, unbiased, skip_nonfinite, inside, num_dims, workers
    )
    Y = operator(mx.sym)(*inputs, options=options, name=name)[0]
    return Y if activation == inside else mx.sym.Activation(Y, act_type=activation)


def _signal(X, running_mean, running_var):
    """A symbol whose last number is 2**66 in training and another one in prediction.

    BatchNorm insists on variables for its statistics; any will do, and it moves them in a backward
    pass only, which this node never has. (`ones_like` of the mean would leave its deferred shape
    unknown: BatchNorm erases it while it does not know that of its data.)
    """
    nodes = X.get_internals()
    names = nodes.list_outputs()
    for i in reversed(range(len(names))):
        if names[i].endswith(_NAME + "_output1"):
            return nodes[i]
    big = mx.sym.ones_like(mx.sym.reshape(running_var, shape=(1, -1))) * 2.0**66
    gamma, beta = mx.sym.SliceChannel(
        mx.sym.concat(big, big, dim=0), num_outputs=2, axis=0, squeeze_axis=True
    )
    return mx.sym.BatchNorm(
        mx.sym.reshape(big, shape=(1, -1, 1)),
        gamma,
        beta,
        running_mean,
        running_mean,
        axis=1,
        fix_gamma=False,
        eps=1e-3,
    )[0]


def fuse_activations(graph):
    """The symbol of a whole network, with each activation that directly follows our operator, and
    is the only one to read what it returns, computed by the operator as it writes: one pass over
    memory less, forward and backward.

    Whoever else reads the batch norm's output wants it without the activation, so then it stays as
    it is. A graph with operators that call Python is left alone: what they are is not in its text.
    """
    text = graph.tojson(remove_amp_cast=False)
    if _NAME not in text:
        return graph
    drawn = json.loads(text)
    nodes = drawn["nodes"]
    if any(node["op"] == "Custom" for node in nodes):
        return graph
    readers = {}  # by number of the node and of its output
    for node in nodes:
        for source in node["inputs"]:
            readers.setdefault(tuple(source[:2]), []).append(source)
    for head in drawn["heads"]:
        readers.setdefault(tuple(head[:2]), []).append(head)
    fused = False
    for number, node in enumerate(nodes):
        kind = node.get("attrs", {}).get("act_type")
        if node["op"] not in ("Activation", "_npx_activation") or kind not in ACTIVATIONS:
            continue
        source = tuple(node["inputs"][0][:2])
        norm = nodes[source[0]]
        options = norm.get("attrs", {}).get("options", "")
        if (
            norm["name"].endswith(_NAME)
            and source[1] == 0
            and len(readers[source]) == 1
            and options.endswith("activation=none")
        ):
            norm["attrs"]["options"] = options.replace("activation=none", f"activation={kind}")
            for reader in readers.get((number, 0), ()):
                reader[:2] = source
            readers[source] = readers.get((number, 0), [])
            fused = True
    if not fused:
        return graph
    new = mx.sym.load_json(json.dumps(drawn))
    return new.as_np_ndarray() if isinstance(graph, mx.sym.np._Symbol) else new

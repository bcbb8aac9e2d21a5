"""A synchronized `BatchNorm` in the graph of a hybridized network, without a tape in the tape.

Any Block can stand in a graph (`gluon_bn.graph`): its operator records the forward pass again when
the backward pass comes. This one keeps what the fused kernel's forward pass hands back, and writes
where MXNet wants the results. It runs on a thread of MXNet's own for such operators, so that to
wait there for other workers stops nothing else.
"""

import numpy as np

from gluon_bn.graph import BlockOperator
from gluon_bn.kernels import fused


class SynchronizedOperator(BlockOperator):
    def forward(self, is_train, req, in_data, out_data, aux):
        block, X = self.prop.block, in_data[0]
        gamma, beta = in_data[-2:]
        self.fits = req[0] == "write" and block.activation is None
        self.fits &= all(fused.supports(a) and a.dtype == X.dtype for a in (X, gamma, beta, *aux))
        if not self.fits:
            super().forward(is_train, req, in_data, out_data, aux)
            return
        block.check(X)
        axis, training = block.axis % X.ndim, bool(is_train) and not block.use_global_stats
        self.call = block._channel.call() if training else None
        self.view = fused.View(X.shape, axis, 1)
        gamma, beta = (fused.memory(v, (1, -1)).copy() for v in (gamma, beta))
        self.backward_of = fused.forward(
            self.view,
            fused.memory(X, self.view.shape),
            fused.memory(out_data[0], self.view.shape),
            gamma if block.scale else np.ones_like(gamma),
            beta if block.center else np.zeros_like(beta),
            *(fused.memory(v, (-1,)) for v in aux),
            block.epsilon,
            block.momentum,
            training,
            block.unbiased,
            block.skip_nonfinite,
            self.call,
        )

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
        if not self.fits:
            super().backward(req, out_grad, in_data, out_data, in_grad, aux)
            return
        x, dy = (fused.memory(a, self.view.shape) for a in (in_data[0], out_grad[0]))
        dx = None
        if req[0] != "null":
            target = fused.memory(in_grad[0], self.view.shape)
            dx = np.empty_like(x) if req[0] == "add" else target
        found = self.backward_of(x, dy, dx)
        if dx is not None and self.call is not None and self.call.idle:
            dx[...] = 0  # for examples that are not there
        if req[0] == "add":
            target += dx
        given = range(1, len(in_grad) - 2)
        for i, gradient in zip((*given, -2, -1), (*(0 for _ in given), *found)):
            if req[i] != "null" and in_grad[i].size:
                target = fused.memory(in_grad[i], (-1,))
                target[...] = np.reshape(gradient, -1) + (target if req[i] == "add" else 0)

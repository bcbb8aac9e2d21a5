"""The tools of *Dive into Deep Learning* train our networks: Trainer, Classifier, train_ch6, ...

d2l needs MXNet's NumPy mode, a switch for the whole process, so each script is its own process.
"""

import os
import subprocess
import sys

import pytest

pytest.importorskip("d2l", reason="d2l is part of the course, not of the package")

COMMON = """
import matplotlib
matplotlib.use('Agg')
from d2l import mxnet as d2l
from mxnet import init, npx
from gluon_bn.models import MODELS
from test_training import batches, images
npx.set_np()
name, norm = {name!r}, {norm!r}
options = {{}} if name == 'lenet' else {{'small': True}}
"""

TRAINER = (
    COMMON
    + """
class Bars(d2l.DataModule):
    def get_dataloader(self, train):
        return batches(200 if train else 100, 10, shuffle=train)

class Net(d2l.Classifier):
    def __init__(self, lr):
        super().__init__()
        self.save_hyperparameters()
        self.net = MODELS[name](norm, **options)
        self.net.initialize(init.Xavier())

net = Net(lr=0.1)
d2l.Trainer(max_epochs=3).fit(net, Bars())
print('accuracy', float(d2l.evaluate_accuracy_gpu(net.net, batches(100, 20))))
"""
)

TRAIN_CH6 = (
    COMMON
    + """
net = MODELS[name](norm, **options)
d2l.train_ch6(net, batches(200, 10, shuffle=True), batches(100, 20), 3, 0.1, d2l.try_gpu())
print('accuracy', float(d2l.evaluate_accuracy_gpu(net, batches(100, 20))))
"""
)

LIVE = (
    COMMON
    + """
npx.reset_np()
from gluon_bn.progress import LiveCurves, ProgressBar
from gluon_bn.training import fit
curves = LiveCurves(3)
records = fit(MODELS[name](norm), batches(400, 20), batches(100, 20), 3, 0.5,
              callbacks=[curves, ProgressBar()])
x, y = curves.animator.X, curves.animator.Y
assert [len(line) for line in y] == [18, 18, 3], y
assert x[2] == [1, 2, 3] and y[2] == [r['test_accuracy'] for r in records]
assert y[0][-1] == records[-1]['train_loss'] and x[0][:2] == [0.2, 0.4]
print('accuracy', records[-1]['test_accuracy'])
"""
)


@pytest.mark.parametrize(
    "script, name, norm",
    [(TRAINER, "resnet18", "auto"), (TRAIN_CH6, "densenet", "auto"), (LIVE, "lenet", "auto")],
)
def test_d2l(script, name, norm):
    done = subprocess.run(
        [sys.executable, "-c", script.format(name=name, norm=norm)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(__file__), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split("accuracy")[-1]) > 0.3, done.stdout[-300:]  # 0.1 is chance

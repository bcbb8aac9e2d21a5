"""The same layers and networks in PyTorch, at their best: eager, compiled and in channels_last.

Without PyTorch there are no such contestants.
"""


def version():
    """PyTorch's version, or None."""
    try:
        import torch
    except ImportError:
        return None
    return torch.__version__


def ready(threads):
    """PyTorch with so many threads, ready for another contest."""
    import torch

    torch.set_num_threads(threads)
    torch._dynamo.reset()  # it stops compiling one function anew after eight shapes
    return torch


def layer_steps(shape, threads, compiled=True):
    """By setting, a training step and a prediction of one layer."""
    if not version():
        return {}
    torch = ready(threads)
    norm = torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d

    def steps(compiled=False, memory_format=torch.contiguous_format):
        X = torch.randn(shape).to(memory_format=memory_format).requires_grad_()
        dY = torch.randn(shape).to(memory_format=memory_format)
        training, still = norm(shape[1]), norm(shape[1]).eval()
        if compiled:
            training, still = (torch.compile(net, dynamic=False) for net in (training, still))

        def train():
            X.grad = None
            training(X).backward(dY)

        def predict():
            with torch.inference_mode():
                still(X)

        return train, predict

    found = {"pytorch eager": steps()}
    if len(shape) == 4:
        found["pytorch channels last"] = steps(memory_format=torch.channels_last)
    if compiled:
        found["pytorch compiled"] = steps(compiled=True)
    return found


def network_steps(model, shape, threads):
    """By setting and mode, a training step by SGD on one batch and a prediction of a network."""
    if not version():
        return {}
    torch = ready(threads)

    def steps(compiled=False, memory_format=torch.contiguous_format):
        net = {"lenet": lenet, "resnet18": resnet18, "densenet": densenet}[model]()
        net = net.to(memory_format=memory_format)
        X = torch.rand(shape).to(memory_format=memory_format)
        y = torch.arange(shape[0]) % 10
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        loss, call = torch.nn.CrossEntropyLoss(), net
        if compiled:
            call = torch.compile(net, dynamic=False)

        def train():
            net.train()
            optimizer.zero_grad()
            loss(call(X), y).backward()
            optimizer.step()

        def predict():
            net.eval()
            with torch.inference_mode():
                call(X)

        return {"train": train, "predict": predict}

    return {
        "pytorch eager": steps(),
        "pytorch channels last": steps(memory_format=torch.channels_last),
        "pytorch compiled": steps(compiled=True),
    }


def lenet():
    """`gluon_bn.models.lenet`."""
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.BatchNorm2d(6), nn.Sigmoid(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.Sigmoid(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(256, 120), nn.BatchNorm1d(120), nn.Sigmoid()),
        *(nn.Linear(120, 84), nn.BatchNorm1d(84), nn.Sigmoid()),
        nn.Linear(84, 10),
    )


def stem():
    from torch import nn

    return (
        *(nn.Conv2d(1, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU()),
        nn.MaxPool2d(3, 2, 1),
    )


def resnet18():
    """`gluon_bn.models.resnet18`."""
    from torch import nn
    from torch.nn.functional import relu

    class Residual(nn.Module):
        def __init__(self, in_channels, channels, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1)
            self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
            changes = stride != 1 or in_channels != channels
            self.conv3 = nn.Conv2d(in_channels, channels, 1, stride) if changes else nn.Identity()
            self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

        def forward(self, X):
            Y = relu(self.norm1(self.conv1(X)))
            return relu(self.norm2(self.conv2(Y)) + self.conv3(X))

    blocks, in_channels = [], 64
    for channels in (64, 128, 256, 512):
        for stride in (1 if channels == 64 else 2, 1):
            blocks.append(Residual(in_channels, channels, stride))
            in_channels = channels
    return nn.Sequential(
        *stem(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)
    )


def densenet():
    """`gluon_bn.models.densenet`."""
    import torch
    from torch import nn

    class Dense(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.body = nn.Sequential(
                nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 32, 3, 1, 1)
            )

        def forward(self, X):
            return torch.cat((X, self.body(X)), 1)

    layers, channels = [*stem()], 64
    for stage in range(4):
        if stage:
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1)]
            layers.append(nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False))
            channels //= 2
        for _ in range(4):
            layers.append(Dense(channels))
            channels += 32
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(channels, 10))

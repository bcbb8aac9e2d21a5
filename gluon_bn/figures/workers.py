"""The figures of the chapter on several workers: parts of a batch, bytes on the network."""

from gluon_bn.plotting.style import panels, styles


def plot_parts(parts, title=None):
    """The values of one channel in each part of a batch, with the part's mean and standard
    deviation, and those of the whole: a Figure.

    parts : a list of NumPy arrays (n,), one for each worker.
    """
    figure, panel = panels(1, 1, (9.5, 3.6), title)
    whole = [x for part in parts for x in part]
    names = [f"worker {rank}" for rank in range(len(parts))] + ["all"]
    for row, values in enumerate([*parts, whole]):
        n = len(values)
        mean = sum(values) / n
        std = (sum((x - mean) ** 2 for x in values) / n) ** 0.5
        colour = "#D55E00" if row == len(parts) else "#0072B2"
        panel.plot(values, [row] * n, "|", color="#888888", markersize=12)
        panel.errorbar(mean, row - 0.28, xerr=std, color=colour, marker="o", capsize=4, linewidth=2)
    panel.set_yticks(range(len(names)), names)
    panel.invert_yaxis()
    panel.set_xlabel("value of the channel; above each row its mean and standard deviation")
    return figure


def plot_bytes(machines, curves, title=None):
    """Bytes through the busiest connection in a step, by the number of machines: a Figure.

    curves : a dict, label -> bytes for each of `machines`.
    """
    figure, panel = panels(1, 1, (8, 3.8), title)
    for (label, values), style in zip(curves.items(), styles(curves)):
        panel.loglog(machines, values, label=label, **style)
    panel.set_xlabel("machines")
    panel.set_ylabel("bytes through the busiest\nconnection in a step")
    panel.legend(handlelength=3, frameon=False)
    return figure

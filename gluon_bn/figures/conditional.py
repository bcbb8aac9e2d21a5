"""The figure of chapter 8: which class was asked for, and which was seen."""

import numpy as np

from gluon_bn.plotting.style import panels


def plot_confusion(counts, labels, title=None):
    """What was asked for against what was seen: a Figure.

    counts : (K, K) whole numbers; row i holds what was seen where class i was asked for. Each cell
    shows its share of the row in percent.
    """
    share = 100 * np.asarray(counts) / np.sum(counts, axis=1, keepdims=True)
    figure, axes = panels(size=(7, 5.6), title=title)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.grid(visible=False)
    for (i, j), value in np.ndenumerate(share):
        if value >= 0.5:
            axes.text(
                j,
                i,
                f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if value > 50 else "black",
            )
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("seen by the classifier, % of a row")
    axes.set_ylabel("asked for")
    return figure

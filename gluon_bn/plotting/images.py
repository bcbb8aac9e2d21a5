"""Images in rows."""

import numpy as np

from gluon_bn.plotting.style import panels


def plot_images(rows, labels=None, title=None, columns=None):
    """Images in rows.

    Parameters
    ----------
    rows : (R, C, H, W) or (R, C, 1, H, W), values 0 (black) to 1
    labels : a name for each row, or None
    title : str or None
    columns : a name for each column, or None

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> len(plotting.plot_images(np.zeros((2, 3, 28, 28)), labels=["a", "b"]).axes)
    1
    """
    rows = np.asarray(rows)
    rows = rows.reshape(*rows.shape[:2], *rows.shape[-2:])
    count, across, height, width = rows.shape
    figure, axes = panels(
        size=(0.7 * across + 1.8, 0.7 * count + (0.5 if title else 0.1)), title=title
    )
    gap = 1  # a pixel of white between two images
    sheet = np.ones((count * (height + gap) - gap, across * (width + gap) - gap))
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * (height + gap), j * (width + gap)
            sheet[top : top + height, left : left + width] = image
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    middle = (height - 1) / 2 + np.arange(count) * (height + gap)
    axes.set_yticks(middle if labels is not None else [], labels)
    middle = (width - 1) / 2 + np.arange(across) * (width + gap)
    axes.set_xticks(middle if columns is not None else [], columns)
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", labelsize=8)
    return figure

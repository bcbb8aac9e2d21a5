"""The one style of all figures: what survives colour blindness and a black-and-white print."""

from itertools import cycle

# Colours of Okabe and Ito (2008), with widths that show a curve under another. The first three have
# one meaning in every picture: no norm, our layer, Gluon's. The others are for everything else.
STYLES = (
    {"color": "#000000", "linestyle": (0, (1, 1.2)), "marker": "s", "linewidth": 1.8},
    {"color": "#E69F00", "linestyle": "-", "marker": "o", "linewidth": 4.5, "markersize": 9},
    {
        "color": "#0072B2",
        "linestyle": (0, (4, 2)),
        "marker": "x",
        "linewidth": 1.8,
        "markersize": 8,
        "markeredgewidth": 1.8,
    },
    {"color": "#009E73", "linestyle": (0, (5, 1, 1, 1)), "marker": "^", "linewidth": 1.8},
    {"color": "#CC79A7", "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "D", "linewidth": 1.8},
    {"color": "#D55E00", "linestyle": (0, (8, 2)), "marker": "v", "linewidth": 3.6},
    {"color": "#56B4E9", "linestyle": (0, (9, 2, 2, 2)), "marker": "P", "linewidth": 1.8},
)
# What a layer is called as a `norm` and in a legend -> its place in STYLES.
LAYERS = {
    **dict.fromkeys(("none", "no norm", "no batch norm"), 0),
    **dict.fromkeys(("auto", "ours", "batch norm", "gluon_bn.BatchNorm"), 1),
    **dict.fromkeys(("gluon", "Gluon", "Gluon's"), 2),
}
OTHERS = (3, 5, 4, 6)  # the second is a wide one, so that of two equal curves both are seen
SETTINGS = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.markersize": 6,
    "figure.dpi": 100,
    "savefig.dpi": 150,
}


def panels(rows=1, columns=1, size=(10, 4.2), title=None, **more):
    """An empty Figure in the style of all figures here, and its axes. pyplot is not involved.

    Parameters
    ----------
    rows, columns : int
    size : pair of float, width and height, inches
    title : str or None
    **more : for `matplotlib.figure.Figure.subplots`

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : one Axes, or an array of them

    Examples
    --------
    >>> figure, axes = plotting.panels(1, 2)
    >>> axes.shape
    (2,)
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, **more)
    if title:
        figure.suptitle(title, fontsize=13, fontweight="bold")
    return figure, axes


def styles(names):
    """A style for each curve of a picture, by what it is: its place in the picture does not matter.

    A name of `LAYERS`, alone or behind a comma ('relu, no norm'), has the style of that layer. What
    else there is, such as a second network with the same layer, gets the other styles in turn, and
    those of the layers only when all others are taken.
    """
    places = [LAYERS.get(str(name).rsplit(", ", 1)[-1]) for name in names]
    places = [None if place in places[:i] else place for i, place in enumerate(places)]
    others = cycle([*OTHERS, *({0, 1, 2} - set(places))])
    return [STYLES[next(others) if place is None else place] for place in places]


def thin(style, count, markers=10):
    """A style with narrow lines and, over `count` points, so many markers."""
    style = {**style, "markevery": max(1, count // markers)}
    return {**style, "linewidth": min(style["linewidth"], 3), "markersize": 6}


def legend_below(figure, axes, **look):
    """One legend below all panels, of what is labelled in `axes`; `look` as for legends."""
    handles, labels = axes.get_legend_handles_labels()
    look = {"ncol": min(len(labels), 4), "handlelength": 3, "frameon": False, **look}
    figure.legend(handles, labels, loc="outside lower center", **look)

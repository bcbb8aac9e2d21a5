"""Boxes and arrows, for the figures that are diagrams."""


def box(axes, left, bottom, width, height, text, *, pad=0.03, hatch=None, look=None, **font):
    """A box with text in its middle.

    pad : how far the edge is drawn outside.  hatch : a pattern around the text.
    look : more for the patch.  font : for the text.
    """
    from matplotlib.patches import FancyBboxPatch

    def patch(**look):
        style = f"round,pad={pad}"
        axes.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle=style, **look))

    plain = {"facecolor": "white", "edgecolor": "black", "linewidth": 1.3, "zorder": 2}
    look = {**plain, **(look or {})}
    if hatch:  # a pattern has the colour of the edge: so it is drawn before it, in grey
        patch(**{**look, "edgecolor": "#BBBBBB"}, hatch=hatch)
        look["facecolor"] = "none"
        font["bbox"] = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"}
    patch(**look)
    font = {"ha": "center", "va": "center", "fontsize": 11, "zorder": look["zorder"] + 2, **font}
    axes.text(left + width / 2, bottom + height / 2, text, **font)


def arrow(axes, start, end, zorder=1, **look):
    """An arrow from point to point; `arrowstyle="-"` leaves a line. `look` as for arrow patches."""
    plain = {"arrowstyle": "-|>", "color": "black", "linewidth": 1.3, "mutation_scale": 13}
    look = {**plain, "shrinkA": 0, "shrinkB": 0, **look}
    axes.annotate("", xy=end, xytext=start, zorder=zorder, arrowprops=look)

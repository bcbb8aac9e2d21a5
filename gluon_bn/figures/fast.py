"""What a layer moves and what a machine can do: passes over memory, bandwidth, roofline, copies,
Amdahl's law. Chapter 12 measures the numbers."""

import re

import numpy as np

from gluon_bn.plotting.contests import CONTESTANTS
from gluon_bn.plotting.style import legend_below, panels, styles

# A colour for each array of the layer; whatever else is read or written is in between.
ARRAYS = {"X": "#56B4E9", "Y": "#E69F00", "dY": "#CC79A7", "dX": "#009E73"}
MARKERS = "osD^vP*X<>"


def plot_passes(ledger, title=None):
    """Every time that an array passes memory, as a box: a Figure, a row for each way to compute.

    ledger : a dict, label -> (forward, backward), each a string of passes with spaces between. A
    pass names what it reads, then ">" and what it writes: "X X>Y" reads X, then reads X and writes
    Y. Several names have commas between. ValueError for a pass that names nothing.
    """
    rows = {
        label: [[_transfers(one) for one in part.split()] for part in parts]
        for label, parts in ledger.items()
    }
    figure, axes = panels(1, 1, (11, 1.1 + 0.75 * len(rows)), title)
    longest = 0
    for place, parts in enumerate(rows.values()):
        x = 0.0
        for i, part in enumerate(parts):
            x += 1.2 * i
            for one in part:
                for name, written in one:
                    axes.bar(
                        x + 0.5,
                        0.7,
                        0.96,
                        bottom=-place - 0.35,
                        edgecolor="black",
                        linewidth=0.6,
                        color=ARRAYS.get(name, "#DDDDDD"),
                        hatch="////" if written else "",
                    )
                    axes.text(
                        x + 0.5,
                        -place,
                        name,
                        ha="center",
                        va="center",
                        fontsize=7.5,
                        bbox={
                            "boxstyle": "round,pad=0.1",
                            "fc": "white",
                            "ec": "none",
                            "alpha": 0.8 if written else 0,
                        },
                    )
                    x += 1
                x += 0.35
        count = sum(len(one) for part in parts for one in part)
        axes.text(x + 0.4, -place, f"{count} times", va="center", fontsize=10)
        longest = max(longest, x)
    axes.set_yticks([-place for place in range(len(rows))], list(rows))
    axes.set_xticks([])
    axes.set_xlim(-0.4, 1.1 * longest + 1)
    axes.set_ylim(-len(rows) + 0.5, 0.5)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for hatch, label in (("", "read"), ("////", "written")):
        axes.bar(
            np.nan,
            np.nan,
            color="white",
            edgecolor="black",
            linewidth=0.6,
            hatch=hatch,
            label=label,
        )
    figure.legend(loc="outside lower center", ncol=2, frameon=False)
    return figure


def _transfers(one):
    """[(name, whether it is written), ...] of one pass."""
    read, _, written = one.partition(">")
    found = [(name, False) for name in read.split(",") if name]
    found += [(name, True) for name in written.split(",") if name]
    if not found or not re.fullmatch(r"[\w,]*>?[\w,]*", one):
        raise ValueError(f"a pass reads like 'X', 'X,dY' or 'X>Y', not {one!r}")
    return found


def plot_bandwidth(sizes, bandwidths, arrays=None, title=None):
    """How fast a copy is, by the size of what is copied: a Figure, a panel for each way to copy.

    sizes : bytes of the array that is read.  bandwidths : a dict, way -> {label: bytes read and
    written a second}.  arrays : a dict, label -> bytes of an array to mark.
    """
    figure, axes = panels(
        1, len(bandwidths), (5.5 * len(bandwidths), 4.4), title, squeeze=False, sharey=True
    )
    top = max(max(curve) for curves in bandwidths.values() for curve in curves.values()) / 1e9
    for panel, (way, curves) in zip(axes[0], bandwidths.items()):
        for style, (label, curve) in zip(styles(curves), curves.items()):
            panel.semilogx(np.asarray(sizes) / 1e6, np.asarray(curve) / 1e9, **style, label=label)
        for i, (label, size) in enumerate((arrays or {}).items()):
            panel.axvline(size / 1e6, color="#555555", linestyle=(0, (2, 2)), linewidth=1)
            height = (1.22 - 0.08 * i) * top
            panel.text(size / 1e6, height, f"{label} ", fontsize=9, ha="right", va="center")
        panel.set_ylim(0, 1.3 * top)
        panel.set_title(way, loc="left")
        panel.set_xlabel("size of the array that is copied (MB)")
    axes[0][0].set_ylabel("read and written (GB/s)")
    legend_below(figure, axes[0][0])
    return figure


def plot_roofline(peak, bandwidths, points, title=None):
    """The roofline of Williams, Waterman and Patterson (2009): a Figure.

    peak : operations a second, at most.  bandwidths : a dict, label -> bytes a second, a slanted
    roof for each.  points : a dict, label -> (operations a byte, operations a second).
    """
    figure, axes = panels(1, 1, (9.5, 5.2), title)
    intensities = [x for x, _ in points.values()]
    ridges = [peak / bandwidth for bandwidth in bandwidths.values()]
    span = np.array([min(intensities + ridges) / 3, max(intensities + ridges) * 5])
    for (label, bandwidth), style in zip(bandwidths.items(), styles(bandwidths)):
        x = np.geomspace(*span, 200)
        axes.loglog(
            x,
            np.minimum(peak, x * bandwidth) / 1e9,
            color=style["color"],
            linestyle=style["linestyle"],
            linewidth=1.8,
            label=f"{label}, {bandwidth / 1e9:.0f} GB/s",
        )
    axes.annotate(
        f"peak, {peak / 1e9:.0f} billion a second",
        (span[0], peak / 1e9),
        (6, 4),
        textcoords="offset points",
        fontsize=10,
    )
    lowest = min(y for _, y in points.values())
    heights = np.log([lowest / 2, 2 * max(peak, *(y for _, y in points.values()))])
    shifts = _shifts(
        {
            label: (np.log(x), 300 * (np.log(y) - heights[0]) / np.ptp(heights))
            for label, (x, y) in points.items()
        }
    )
    for i, (label, (x, y)) in enumerate(points.items()):
        colour = CONTESTANTS.get(label, ("#FFFFFF",))[0]
        axes.loglog(
            x,
            y / 1e9,
            MARKERS[i % len(MARKERS)],
            color=colour,
            markeredgecolor="black",
            markersize=9,
        )
        right = x > 0.1 * span[1]
        axes.annotate(
            label,
            (x, y / 1e9),
            (-8 if right else 8, shifts[label]),
            textcoords="offset points",
            ha="right" if right else "left",
            va="center",
            fontsize=10,
            bbox={"boxstyle": "round,pad=0.05", "fc": "white", "ec": "none"},
        )
    axes.set_ylim(*np.exp(heights) / 1e9)
    axes.set_xlim(*span)
    axes.set_xlabel("arithmetic intensity: operations a byte")
    axes.set_ylabel("operations a second (billions)")
    axes.legend(loc="lower right", handlelength=3, frameon=False)
    return figure


def _shifts(places, line=11, near=1.0):
    """How far down each label must go, in points, lest it cover the one above it.

    places : a dict, label -> (x, y); y in points, and labels meet whose x differ by less than near.
    """
    taken, shifts = [], {}
    for label, (x, y) in sorted(places.items(), key=lambda item: -item[1][1]):
        above = [bottom for other, bottom in taken if abs(other - x) < near]
        place = min([y, *(bottom - line for bottom in above)])
        shifts[label] = place - y
        taken.append((x, place))
    return shifts


def plot_copies(copies, bounds=(), title=None):
    """How long each contestant takes, in copies of the array: a Figure, a panel a shape.

    copies : a dict, shape -> {contestant: copies}.  bounds : copies, each drawn as a line.
    """
    figure, axes = panels(1, len(copies), (max(3.7 * len(copies), 6), 3.8), title, squeeze=False)
    for panel, (shape, times) in zip(axes[0], copies.items()):
        for place, (name, value) in enumerate(times.items()):
            colour = CONTESTANTS.get(name, ("#999999",))[0]
            panel.plot(
                value, -place, MARKERS[place], color=colour, markeredgecolor="black", markersize=9
            )
            panel.annotate(
                f"{value:.3g}", (value, -place), (8, 0), textcoords="offset points", va="center"
            )
        for bound, dashes in zip(bounds, ((0, (1, 1.5)), (0, (4, 2)))):
            panel.axvline(bound, color="#000000", linestyle=dashes, linewidth=1.4)
        panel.set_xscale("log")
        panel.set_xlim(1, 5 * max(times.values()))
        panel.set_yticks([-place for place in range(len(times))], list(times))
        panel.set_ylim(0.6 - len(times), 0.6)
        panel.set_title(str(shape), loc="left", fontsize=11)
        lines = f" (lines: {' and '.join(f'{bound:g}' for bound in bounds)})" if bounds else ""
        panel.set_xlabel("copies" + lines)
    return figure


def plot_amdahl(shares, measured=None, title=None):
    """What a faster layer can bring to a network (Amdahl, 1967): a Figure.

    shares : a dict, network -> the part of its time that the layer takes, 0 to 1.
    measured : a dict, network -> (times as fast the layer, times as fast the network).
    """
    figure, axes = panels(1, 1, (9, 4.6), title)
    measured = measured or {}
    found = [factor for factor, _ in measured.values()]
    factors = np.geomspace(min([1, *found]), max([10, *found]), 200)
    for (network, share), style in zip(shares.items(), styles(shares)):
        axes.semilogx(
            factors,
            1 / (1 - share + share / factors),
            **{**style, "marker": ""},
            label=f"{network}: the layer takes {100 * share:.0f} % of the time",
        )
        if network in measured:
            factor, times = measured[network]
            law = 1 / (1 - share + share / factor)
            axes.plot([factor, factor], [law, times], color=style["color"], linewidth=1)
            axes.plot(
                factor,
                times,
                style["marker"],
                color=style["color"],
                markersize=10,
                markeredgewidth=2,
                label=f"{network}, measured",
            )
    axes.axhline(1, color="#777777", linewidth=0.8)
    axes.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("times as fast: the layer")
    axes.set_ylabel("times as fast: the network")
    legend_below(figure, axes, ncol=2, fontsize=9)
    return figure

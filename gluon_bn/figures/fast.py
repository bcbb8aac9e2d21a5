"""What a layer moves and what a machine can do: passes over memory, bandwidth, roofline, copies,
Amdahl's law. Chapter 12 measures the numbers."""

import re

import numpy as np

from gluon_bn.plotting.contests import CONTESTANTS
from gluon_bn.plotting.style import STYLES, panels

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
    """How fast a copy is, by the size of what is copied: a Figure.

    sizes : bytes of the array that is read.  bandwidths : bytes read and written a second.
    arrays : a dict, label -> bytes of an array to mark.
    """
    figure, axes = panels(1, 1, (9, 4.2), title)
    axes.semilogx(np.asarray(sizes) / 1e6, np.asarray(bandwidths) / 1e9, **STYLES[2])
    axes.set_ylim(0, 1.25 * max(bandwidths) / 1e9)
    for i, (label, size) in enumerate((arrays or {}).items()):
        axes.axvline(size / 1e6, color="#555555", linestyle=(0, (2, 2)), linewidth=1)
        axes.text(
            size / 1e6,
            (1.2 - 0.07 * (i % 2)) * max(bandwidths) / 1e9,
            f" {label}",
            fontsize=9,
            va="center",
        )
    axes.set_xlabel("size of the array that is copied (MB)")
    axes.set_ylabel("read and written (GB/s)")
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
    for (label, bandwidth), style in zip(bandwidths.items(), (STYLES[0], *STYLES[2:])):
        x = np.geomspace(*span, 200)
        axes.loglog(
            x,
            np.minimum(peak, x * bandwidth) / 1e9,
            color=style["color"],
            linestyle=style["linestyle"],
            linewidth=1.8,
            label=f"{label}, {bandwidth / 1e9:.0f} GB/s",
        )
    lowest = min(y for _, y in points.values())
    heights = np.log([lowest / 2, 1.5 * max(peak, *(y for _, y in points.values()))])
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


def plot_copies(copies, bounds=None, title=None):
    """How long each contestant takes, in copies of the array: a Figure, a panel a shape.

    copies : a dict, shape -> {contestant: copies}.  bounds : a dict, shape -> copies that cannot
    be undercut, drawn as a line.
    """
    figure, axes = panels(1, len(copies), (max(3.7 * len(copies), 6), 3.8), title, squeeze=False)
    for panel, (shape, times) in zip(axes[0], copies.items()):
        for place, (name, value) in enumerate(times.items()):
            colour, hatch, _ = CONTESTANTS.get(name, ("#999999", "", "-"))
            panel.barh(
                -place, value, 0.7, color=colour, hatch=hatch, edgecolor="black", linewidth=0.6
            )
            panel.text(value, -place, f" {value:.3g}", va="center", fontsize=9)
        if bounds and shape in bounds:
            panel.axvline(bounds[shape], color="#000000", linestyle=(0, (4, 2)), linewidth=1.4)
        panel.set_xscale("log")
        panel.set_xlim(1, 4 * max(times.values()))
        panel.set_yticks([-place for place in range(len(times))], list(times))
        panel.grid(visible=False, axis="y")
        panel.set_title(str(shape), loc="left", fontsize=11)
        panel.set_xlabel("copies" + " (dashed: the bound)" * bool(bounds))
    return figure


def plot_amdahl(shares, measured=None, title=None):
    """What a faster layer can bring to a network (Amdahl, 1967): a Figure.

    shares : a dict, network -> the part of its time that the layer takes, 0 to 1.
    measured : a dict, network -> (times as fast the layer, times as fast the network).
    """
    figure, axes = panels(1, 1, (9, 4.4), title)
    factors = np.geomspace(1, 100, 200)
    for i, (network, share) in enumerate(shares.items()):
        style = {**STYLES[(0, 2, 3, 4)[i % 4]], "marker": ""}
        marker = STYLES[(0, 2, 3, 4)[i % 4]]["marker"]
        axes.semilogx(
            factors,
            1 / (1 - share + share / factors),
            **style,
            label=f"{network}: the layer takes {100 * share:.0f} % of the time",
        )
        if measured and network in measured:
            axes.semilogx(
                *measured[network],
                marker,
                color=style["color"],
                markersize=10,
                markeredgewidth=2,
                label=f"{network}, measured",
            )
    axes.axhline(1, color="#777777", linewidth=0.8)
    axes.set_xlabel("times as fast: the layer")
    axes.set_ylabel("times as fast: the network")
    figure.legend(loc="outside lower center", ncol=2, handlelength=3, frameon=False, fontsize=9)
    return figure

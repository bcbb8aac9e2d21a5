"""Our layer and Gluon's in the same network, step by step."""

from gluon_bn.plotting.runs import describe_dataset
from gluon_bn.plotting.style import STYLES, panels


def plot_comparison(result):
    """The two losses, and how far apart the networks are.

    Parameters
    ----------
    result : dict {"model", "norm", "dataset", "steps"}
        steps is what `gluon_bn.comparison.compare_with_gluon` gave.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> apart = {"outputs": 1e-6, "gradients": 1e-6, "running_statistics": 1e-7}
    >>> step = {"step": 1, "loss": {"ours": 2.3, "gluon": 2.3}, "one_step": apart, "drift": apart}
    >>> dataset = {"name": "stand-in", "train": 9, "test": 9}
    >>> result = {"model": "lenet", "norm": "auto", "dataset": dataset, "steps": [step]}
    >>> len(plotting.plot_comparison(result).axes)
    2
    """
    steps = result["steps"]
    x = [record["step"] for record in steps]
    figure, (left, right) = panels(
        1,
        2,
        size=(12, 5),
        title=f"{result['model']}, ours ({result['norm']}) and Gluon's layer, "
        f"{describe_dataset(result['dataset'])}",
    )
    few = max(1, len(steps) // 12)
    for name, label, style in (("ours", "ours", STYLES[1]), ("gluon", "Gluon's", STYLES[2])):
        left.plot(
            x, [record["loss"][name] for record in steps], label=label, markevery=few, **style
        )
    left.set_title("Training loss", loc="left")
    left.set_ylabel("cross entropy (nats)")
    names = dict(zip(("outputs", "gradients", "running_statistics"), STYLES[3:]))
    for name, style in names.items():
        for kind, look in (("one_step", {"linestyle": "-"}), ("drift", {"linestyle": ":"})):
            y = [max(record[kind][name], 1e-10) for record in steps]  # 0 has no logarithm
            right.semilogy(
                x,
                y,
                markevery=few,
                label=(f"{name.replace('_', ' ')}, {kind.replace('_', ' ')}"),
                **{**style, **look},
            )
    right.set_title("Largest difference", loc="left")
    right.set_ylabel("absolute difference")
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.legend(fontsize=9, ncol=3, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return figure

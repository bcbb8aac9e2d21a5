"""Figures that serve one chapter, in a module named after it.

    from gluon_bn.figures import lenet as figures

    figures.plot_gamma_beta(learned)

What several chapters or the command line draw is in `gluon_bn.plotting`, with the style of all
figures. Every function returns a `matplotlib.figure.Figure`; arguments are plain numbers and NumPy
arrays, or the records that `benchmarks/results` keeps.
"""

"""Batch normalization, built from scratch in MXNet Gluon."""

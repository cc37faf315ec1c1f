"""Bounds of the gradient-norm paper: how much an example bears on the test loss."""

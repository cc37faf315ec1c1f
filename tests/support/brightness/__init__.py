"""A second task, tiny and complete: how bright is the square?

Nothing of it stands outside this folder but two registry lines, which the tests add:
of the task and of its network of one layer.
"""

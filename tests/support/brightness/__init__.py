"""A made-up task: how bright an image is. Its score is an error: the lower the better.

It has no pictures and no network: recorded runs of it are for reports alone. Register
it with `registry.TASKS`.
"""

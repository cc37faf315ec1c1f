"""MPII, 1,000 people labelled at random, Newell's validation split, with any method.

    python -m jalpose.main --config=configs/mpii.py:method=eglpp,scale=small

Crops by the official centre and scale, PCKh@0.5 as the official evaluation has it. The
scales are as those of configs/lsp.py.
"""

from jalpose.loop.configs import benchmark

get_config = benchmark("mpii")

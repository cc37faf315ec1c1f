"""LSP labelled and test, LSPET pool: the papers' protocol, with any method.

    python -m jalpose.main --config=configs/lsp.py:method=coreset,scale=small,seed=3

scale=paper (the default): the papers' network and lengths, for a GPU or TPU.
scale=small: minutes a cycle on two CPU cores. scale=tiny: to see that everything works.
What is changed for this benchmark stands in jalpose/tasks/pose/settings.py.
"""

from jalpose.loop.configs import benchmark

get_config = benchmark("lsp")

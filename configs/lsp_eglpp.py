"""EGL++, from LSP to LSPET: configs/lsp.py with method=eglpp.

python -m jalpose.main --config=configs/lsp_eglpp.py:scale=small
"""

from jalpose.loop.configs import benchmark

get_config = benchmark("lsp", method="eglpp")

"""Aleatoric uncertainty, from LSP to LSPET.

    python -m jalpose.main --config=configs/lsp_aleatoric.py:scale=small

The protocol, the same for all methods, is in jalpose/protocols.py.
"""

from jalpose.protocols import protocol

get_config = protocol("lsp", "aleatoric")

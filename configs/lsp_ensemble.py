"""Query by committee, from LSP to LSPET.

    python -m jalpose.main --config=configs/lsp_ensemble.py:scale=small

The protocol, the same for all methods, is in jalpose/settings/protocols.py.
"""

from jalpose.settings.protocols import protocol

get_config = protocol("lsp", "ensemble")

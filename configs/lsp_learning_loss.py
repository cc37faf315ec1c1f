"""Predicted loss, LL++conv, from LSP to LSPET.

    python -m jalpose.main --config=configs/lsp_learning_loss.py:scale=small

Learning Loss: acquisition.learning_loss.objective=margin with head=stacks; LL++:
head=average.

The protocol, the same for all methods, is in jalpose/settings/protocols.py.
"""

from jalpose.settings.protocols import protocol

get_config = protocol("lsp", "learning_loss")

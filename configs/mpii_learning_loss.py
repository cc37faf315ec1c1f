"""Predicted loss, LL++conv, on MPII.

    python -m jalpose.main --config=configs/mpii_learning_loss.py:scale=small

Learning Loss: acquisition.learning_loss.objective=margin with head=stacks; LL++:
head=average.

The protocol, the same for all methods, is in jalpose/settings/protocols.py.
"""

from jalpose.settings.protocols import protocol

get_config = protocol("mpii", "learning_loss")

"""No new labels, only further training: the control, on MPII.

    python -m jalpose.main --config=configs/mpii_control.py:scale=small

The protocol, the same for all methods, is in jalpose/protocols.py.
"""

from jalpose.protocols import protocol

get_config = protocol("mpii", "control")

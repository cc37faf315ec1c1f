"""VL4Pose: likelihood of the links' lengths, on MPII.

    python -m jalpose.main --config=configs/mpii_vl4pose.py:scale=small

The protocol, the same for all methods, is in jalpose/settings/protocols.py.
"""

from jalpose.settings.protocols import protocol

get_config = protocol("mpii", "vl4pose")

"""Expected gradient length over the heatmaps' peaks, on MPII.

    python -m jalpose.main --config=configs/mpii_egl.py:scale=small

The protocol, the same for all methods, is in jalpose/settings/protocols.py.
"""

from jalpose.settings.protocols import protocol

get_config = protocol("mpii", "egl")

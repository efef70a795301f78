"""Networks that are built from a config and saved with it: the config follows when units are removed.

Nothing here knows a library or a model: a network takes part if it has a ``config`` that turns into a dict
and back, and a ``save_pretrained``; what its fields mean is found by building its class from changed configs.
"""

from bayesprune.structure.pretrained.configure import configure_, configure_loaded_, refuse_parts_

__all__ = ["configure_", "configure_loaded_", "refuse_parts_"]

"""Concord: one model trained across many places whose data stays where it is."""

import warnings

# The service core has no numpy. torch says so at import, once per process; nothing here needs it.
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")

__version__ = "0.1.0"

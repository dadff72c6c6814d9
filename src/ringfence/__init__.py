"""ringfence: cloud-grade security groups for your own Linux machines.

ARCHITECTURE.md shows the packages and which way imports go; start there.
"""

__version__ = "0.1.0"

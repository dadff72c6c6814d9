"""PURE: what a policy means: its values, resolution for a host, verdict, and the abstract program a kernel shall run.

This room knows no bytes, no JSON, no clock and no I/O; it is imported by every other room and imports none.
"""

"""PURE: bytes on the wire <-> values of the model: requests, answers, error bodies, signatures, the agents' feed.

This package knows the JSON of the Exoscale API and of the agents' protocol, and nothing of HTTP servers, stores or
clocks: the time and every secret come in as arguments. It changes no state, and raises only ``Invalid`` and ``Denied``.
"""

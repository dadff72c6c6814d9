"""PURE: bytes on the wire <-> values of the model: requests, answers, error bodies, signatures, the agents' feed.

This room knows the JSON of the Exoscale API and of the agent protocol and nothing of HTTP servers, stores or clocks:
the time and every secret come in as arguments. It decides no state; ``Invalid`` and ``Denied`` are all it refuses with.
"""

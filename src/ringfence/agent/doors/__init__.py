"""The doors: the only modules of the agent that call the operating system. Each has a Protocol and its implementation.

The rest of the agent gets them as arguments and can be run against fakes. A door decides nothing: it does what it is
told, or raises an ``OperatorError`` with the system's answer.
"""

"""The only places of the agent that call the operating system: one Protocol each, with its real implementation.

Everything else of the agent is given these and can be run against fakes. A door decides nothing: it does what it is
told, and says in an ``OperatorError`` what the system answered when it could not.
"""

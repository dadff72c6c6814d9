"""PURE: compiles a host's view into the program that its kernel shall run, and compares programs into steps."""

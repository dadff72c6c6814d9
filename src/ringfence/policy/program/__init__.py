"""PURE: a view becomes the program that a kernel shall run (``compile``), two programs steps (``delta``)."""

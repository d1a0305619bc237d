"""What the verbs of the Makefile and the tests need besides Concord itself; no part of the package."""

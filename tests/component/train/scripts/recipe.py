"""Runs a recipe as the service does: recipe.py <module>."""

import importlib
import sys

sys.exit(importlib.import_module(sys.argv[1]).main())

"""Decisions, and nothing else: states, specs, placement, order, retry. Standard library only.

No clock, no randomness, no I/O, no floats in any ordering. The service and every simulation drive
this same code; `models` imports the states from here, because rows store the state machine and do
not define it.
"""

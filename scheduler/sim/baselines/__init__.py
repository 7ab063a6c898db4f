"""Policies that people use today, each as short as it can be told, on one event loop.

They are told everything a trace knows; which of it a policy looks at, its module says.
"""

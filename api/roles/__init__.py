"""The composition root: settings → database → loops. The only package that sees everything."""

BESIDE_SERVICE = "--beside-service"
"""Tells a daemon that a service started it: when that has been gone for long, it leaves as well."""

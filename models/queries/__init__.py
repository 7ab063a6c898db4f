"""Statements that more than one package needs. Nothing here begins or ends a transaction."""

"""The composition root: settings → database → loops. The only package that sees everything."""

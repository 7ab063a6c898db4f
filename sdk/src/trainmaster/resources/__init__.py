"""The tree of `client.<resource>.<method>()`: one module per resource of the API."""

"""Replicas joined by servers: the outer group of a training, in every mode but `allreduce`."""

"""The simulator: the second driver of `scheduler.core`, in virtual time, and policies to compare.

Standard library only. It knows no database, no HTTP and no nodes: what the service learns from
them, this package makes up from a trace of jobs.
"""

"""Short ways to write jobs and clusters down."""

from scheduler.sim.trace import Cluster, TraceJob


def cluster_of(num_nodes: int, gpus_per_node: int = 8) -> Cluster:
    return Cluster(num_nodes=num_nodes, gpus_per_node=gpus_per_node)


def job(
    name: str,
    submit_s: float,
    gpus: int,
    duration_s: float,
    *,
    limit_s: float | None = None,
    vc: str = "default",
) -> TraceJob:
    return TraceJob(
        job_id=name,
        submit_ms=round(submit_s * 1000),
        gpus=gpus,
        duration_ms=round(duration_s * 1000),
        limit_ms=None if limit_s is None else round(limit_s * 1000),
        vc=vc,
    )

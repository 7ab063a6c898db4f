"""`python -m workers.node`: the daemon of this machine, told by arguments or the environment."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from pathlib import Path

from workers.node.config import NodeConfig
from workers.node.daemon import run_daemon


def main() -> int:
    """Read arguments and environment, run the daemon, return its exit code."""
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    return run_daemon(_read_config())


def _read_config() -> NodeConfig:
    checkout = Path(__file__).resolve().parents[2]
    get = os.environ.get
    data_dir = get("TRAINMASTER_DATA_DIR", str(Path.home() / ".trainmaster"))
    job_python = get("TRAINMASTER_JOB_PYTHON", str(checkout / ".venv-job/bin/python"))
    parser = argparse.ArgumentParser(prog="python -m workers.node", description=__doc__)
    parser.add_argument("--url", default=get("TRAINMASTER_URL", "http://127.0.0.1:8700"))
    parser.add_argument("--node-dir", type=Path, default=Path(data_dir) / "node")
    parser.add_argument("--name", default=get("TRAINMASTER_NODE_NAME", socket.gethostname()))
    parser.add_argument("--pool", default=get("TRAINMASTER_NODE_POOL", "default"))
    parser.add_argument("--address", default=get("TRAINMASTER_NODE_ADDRESS"))
    parser.add_argument("--job-python", type=Path, default=Path(job_python))
    parser.add_argument(
        "--heartbeat", type=float, default=float(get("TRAINMASTER_HEARTBEAT_SECONDS", "5"))
    )
    parser.add_argument(
        "--fence", type=float, default=float(get("TRAINMASTER_FENCE_SECONDS", "50"))
    )
    parser.add_argument("--no-cgroup", action="store_true", help="find processes without a cgroup")
    parser.add_argument("--no-preload", action="store_true", help="start no preloader")
    parser.add_argument("--keep-failed", type=int, default=0, help="run folders kept for a look")
    parser.add_argument(
        "--orphan", type=float, default=60.0, help="seconds that fork servers outlive the daemon"
    )
    given = parser.parse_args()
    return NodeConfig(
        url=given.url,
        node_dir=given.node_dir.absolute(),
        name=given.name,
        pool=given.pool,
        address=given.address,
        # Never an argument: arguments can be read by everybody on the machine.
        admin_key=get("TRAINMASTER_API_KEY"),
        job_python=given.job_python.absolute(),
        heartbeat_s=given.heartbeat,
        fence_s=given.fence,
        orphan_s=given.orphan,
        uses_cgroups=not given.no_cgroup,
        preloads_default=not given.no_preload,
        kept_failed_runs=given.keep_failed,
    )


if __name__ == "__main__":
    sys.exit(main())

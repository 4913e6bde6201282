"""The two nodes of cluster/local.sh: a head and a worker on 127.0.0.1, until this process gets SIGTERM.

`ray start` cannot do this: on 127.0.0.1 it either refuses a second node or listens on every interface.
"""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from ray.cluster_utils import Cluster


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="of the head")
    parser.add_argument("--dashboard-port", type=int, required=True, help="of dashboard and job server")
    parser.add_argument("--cpus", type=int, required=True, help="of each node")
    parser.add_argument("--gpus", type=int, required=True, help="of the head; the worker has none")
    parser.add_argument("--temp", type=Path, required=True, help="RAY_TMPDIR, for sockets and logs")
    options = parser.parse_args()

    shared = {
        "node_ip_address": "127.0.0.1",
        "num_cpus": options.cpus,
        # free ports, whoever else has a Ray on this machine
        "dashboard_agent_listen_port": 0,
    }
    cluster = Cluster()
    cluster.add_node(
        **shared,
        num_gpus=options.gpus,
        gcs_server_port=options.port,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        dashboard_port=options.dashboard_port,
    )
    # a folder of its own: in a shared one this node unpacks a job's upload anew while the head already runs from it
    cluster.add_node(**shared, temp_dir=str(options.temp / "worker"))

    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: end.set())
    (options.temp / "ready").touch()
    end.wait()
    cluster.shutdown()


if __name__ == "__main__":
    main()

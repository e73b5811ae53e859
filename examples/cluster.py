"""A search as a job of a Ray cluster: looked at first, sent, followed, fetched, exported.

    ray start --head --port=26379 --num-cpus=2 --dashboard-host=127.0.0.1
    python -m examples.cluster --cluster http://127.0.0.1:8265 [--full]

Shows: `autoprune submit search --dry-run`, which asks the cluster for its versions and room and sends
nothing; the same without it; `logs -f` until the job has ended; `status`; `fetch` into a run folder of
this machine; and `export` from that. The code of the functions, the weights and the space go to the
cluster by the hash of their contents. The model and the task are those of `examples.own_task`, so that
the job is short at either size. `ray stop` ends every Ray of yours on the machine; docs/cluster.md has
tokens, more machines and other clusters.
"""

from __future__ import annotations

import os

import autoprune
from examples.commands import call, example, parser_of, sizes
from examples.own_task import prepare

NAME = "example-cluster"


def main() -> None:
    """Plan, submit, follow, fetch, export."""
    parser = parser_of(__doc__)
    parser.add_argument("--cluster", help="address of the head's dashboard; default: AUTOPRUNE_CLUSTER")
    cluster = parser.parse_args().cluster or os.environ.get("AUTOPRUNE_CLUSTER")
    if cluster is None:
        parser.error("give --cluster http://HEAD:8265 or set AUTOPRUNE_CLUSTER; --help says how to start one")
    asked = example(__doc__, "cluster", parser=parser)
    root = ["--storage-root", asked.work.absolute() / "root"]
    where = ["--cluster", cluster, *root]
    model, weights, space = prepare(asked.work, small=asked.small)
    words = ["submit", "search", model, "--weights", weights, "--task", "examples.own_task:task"]
    words += ["--space", space, "--target", "packed", "--name", NAME, "--workers", 1, "--finetune-steps", 50]
    words += ["--budget", "10kB" if asked.small else "30kB", "--trials", 2 if asked.small else 40, *where]
    call(*words, "--dry-run")
    call(*words)
    call("logs", NAME, "-f", *where)
    call("status", NAME, *where)
    fetched = asked.work / "fetched"
    if not fetched.exists():
        call("fetch", NAME, *root, "-o", fetched)
    front = autoprune.open_run(fetched)
    print(sizes(front))
    call("export", fetched, "-o", asked.work / "model")


if __name__ == "__main__":
    main()

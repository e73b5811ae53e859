"""A search as the file that a cluster's own tool starts it from.

`rayjob` is a RayJob of the KubeRay operator, `slurm` a script for sbatch, `skypilot` a task of SkyPilot and
`cluster` the cluster of `ray up`. What the search asks for (workers, CPUs and GPUs of a trial, the node that
latency is timed on) is read from its own words; these go into the file as data, quoted by the YAML writer or
for the shell. A run that was begun is gone on with, so that each tool's retry is a resume.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from autoprune.core.errors import AutopruneError
from autoprune.jobs.rayjob import rayjob
from autoprune.jobs.render_plan import EXAMPLE_HOSTS, GB_A_WORKER, IMAGE, RUNS, Plan, planned


def render(
    kind: str,
    words: Sequence[str],
    *,
    name: str = "autoprune",
    image: str = IMAGE,
    nodes: int | None = None,
    accelerator: str = "L4",
    hosts: Sequence[str] = EXAMPLE_HOSTS,
) -> str:
    """The file that starts a search on a cluster.

    Args:
        kind: one of `KINDS`.
        words: of the search, from `search` on, as the command line has them.
        name: of the job and, where the words have no -o, of the run's folder.
        image: of containers that autoprune is installed in.
        nodes: machines that the workers are dealt to.
        accelerator: which GPUs, as SkyPilot calls them.
        hosts: addresses of machines for `ray up`: that of the head first, that for latency last.

    Raises:
        AutopruneError: for what none of it can be: another command than a search, no worker, a name or label
            that the tools do not take, or a password anywhere but in --storage.
    """
    if kind not in _RENDERS:
        raise AutopruneError(f"--render {kind!r} does not exist; there are {', '.join(KINDS)}")
    runs = "runs" if kind == "slurm" else RUNS
    return _RENDERS[kind](planned(words, name, image, nodes, accelerator, tuple(hosts), runs))


# ---- Slurm --------------------------------------------------------------------------------------


def _slurm(plan: Plan) -> str:
    options = [
        f"--job-name={plan.name}",
        f"--nodes={plan.machines}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={plan.cpus + 1}",
        *([f"--gpus-per-node={plan.gpus}"] if plan.gpus else []),
        f"--mem={plan.memory_gb + GB_A_WORKER}G",
        "--exclusive",
        "--requeue",
        f"--output={plan.name}-%j.log",
    ]
    start = ["--num-cpus", str(plan.cpus), "--num-gpus", str(plan.gpus)]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in options),
        "# A job of Slurm: sbatch FILE. Each machine must have autoprune on its PATH, and the run's folder",
        "# must be on a disk that outlives the job. --exclusive: `ray symmetric-run` ends with `ray stop`,",
        "# which stops every Ray of this user on a machine; and latency is timed where nobody else is.",
        *(f"# {name} must be set when the job is submitted." for name in plan.variables),
        "set -euo pipefail",
        'hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")',
        "address=${hosts%%$'\\n'*}:$((20000 + SLURM_JOB_ID % 10000))",
        "export RAY_AUTH_MODE=token",
        "RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \\n')",
        "export RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1",
        f"start=({shlex.join(start)})",
        f"command=({shlex.join(plan.command)})",
        "export label=" + shlex.quote(plan.labels),
        "# The last machine has the label; the first is the head, where the driver runs.",
        "# shellcheck disable=SC2016",
        "node='address=$1; shift; "
        'if [ -n "$label" ] && [ "$SLURM_NODEID" -eq $((SLURM_JOB_NUM_NODES - 1)) ]; then '
        'set -- --labels "$label" "$@"; fi; '
        'exec ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" "$@"\'',
        'srun bash -c "$node" node "$address" "${start[@]}" -- "${command[@]}"',
    ]
    return "\n".join(lines) + "\n"


# ---- SkyPilot -----------------------------------------------------------------------------------


def _skypilot(plan: Plan) -> str:
    """Not by symmetric-run: it ends with `ray stop`, which would stop SkyPilot's own Ray as well."""
    start = f"ray start --block --num-cpus {plan.cpus} --num-gpus {plan.gpus}"
    label = ""
    if plan.label is not None:
        last = '[ "$SKYPILOT_NODE_RANK" -eq $((SKYPILOT_NUM_NODES - 1)) ]'
        label = f"if {last}; then set -- --labels {shlex.quote(plan.labels)}; fi\n"
    run = (
        'head=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)\n'
        'if [ "$SKYPILOT_NODE_RANK" -ne 0 ]; then\n'
        f"set --\n{label}"
        f'until {start} --address "$head:6379" "$@" || [ "$((tries += 1))" -ge 12 ]; do sleep 5; done\n'
        "exit 0\nfi\n"
        f"{start} --head --port 6379 &\n"
        "ray=$!\n"
        "trap 'kill $ray' EXIT\n"
        'until ray status --address "$head:6379" >/dev/null 2>&1; do sleep 2; done\n'
        f"{shlex.join(plan.command)}\n"
    )
    resources: dict[str, Any] = {"cpus": f"{plan.cpus + 1}+", "memory": f"{plan.memory_gb + GB_A_WORKER}+"}
    if plan.gpus:
        resources["accelerators"] = f"{plan.accelerator}:{plan.gpus}"
    secrets = dict.fromkeys(["RAY_AUTH_TOKEN", *plan.variables])
    task = {
        "name": plan.name,
        "num_nodes": plan.machines,
        "resources": resources | {"image_id": f"docker:{plan.image}"},
        "envs": {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"},
        "secrets": secrets,
        "run": run,
    }
    asked = " ".join(f"--secret {name}" for name in secrets)
    return _written(
        task,
        f"A task of SkyPilot: RAY_AUTH_TOKEN=$(openssl rand -hex 32) sky launch {asked} FILE.\n"
        f"The folder {RUNS} is the first machine's; mount a bucket there to have it outlive the cluster.",
    )


# ---- ray up -------------------------------------------------------------------------------------


def _cluster(plan: Plan) -> str:
    head, *others = plan.hosts
    if not others:
        raise AutopruneError("give the addresses of two machines or more: the head's, then those of workers")
    room = f"--num-cpus={plan.cpus} --num-gpus={plan.gpus}"
    label = ""
    if plan.label is not None:
        label = f' $(case " $(hostname -I) " in *" {others[-1]} "*) echo --labels={plan.labels};; esac)'
    variables = "export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0; "
    join = f"{variables}ulimit -n 65536; ray start --address=$RAY_HEAD_IP:6379 {room}{label}"
    data = {
        "cluster_name": plan.name,
        "provider": {"type": "local", "head_ip": head, "worker_ips": others},
        "auth": {"ssh_user": "ubuntu"},
        "docker": {"image": plan.image, "container_name": "autoprune", "pull_before_run": False},
        "file_mounts": {"~/.ray/auth_token": "~/.ray/auth_token"},  # nosec B105 # where it lies
        "head_start_ray_commands": [
            "ray stop",
            f"{variables}ulimit -n 65536; ray start --head --port=6379 --num-cpus=0 --num-gpus=0 "
            "--disable-usage-stats",
        ],
        "worker_start_ray_commands": ["ray stop", join],
    }
    search = shlex.join(["autoprune", *plan.words, "--address", "auto", "-o", plan.run])
    example = f"ray exec FILE {shlex.quote(search)}" if search.isprintable() else "ray exec FILE COMMAND"
    return _written(
        data,
        "A cluster of machines of one's own, for `ray up FILE`: write their addresses over those here.\n"
        "Before that, `ray get-auth-token --generate` makes the token that all share. Then, for example:\n"
        f"{example}",
    )


# ---- writing ------------------------------------------------------------------------------------


def _written(data: dict[str, Any], told: str) -> str:
    """YAML below a comment, which has printable characters alone."""
    comment = "".join(f"# {line}\n" for line in told.split("\n"))
    return comment + yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=10**6)


class _Dumper(yaml.SafeDumper):
    """Writes scripts line by line, where YAML can."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


_RENDERS: dict[str, Callable[[Plan], str]] = {
    "rayjob": lambda plan: _written(*rayjob(plan)),
    "slurm": _slurm,
    "skypilot": _skypilot,
    "cluster": _cluster,
}
KINDS = tuple(_RENDERS)
"""What can be written."""

#!/bin/bash
#SBATCH --job-name=autoprune
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=9
#SBATCH --mem=36G
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --output=autoprune-%j.log
# A job of Slurm: sbatch FILE. Each machine must have autoprune on its PATH, and the run's folder
# must be on a disk that outlives the job. --exclusive: `ray symmetric-run` ends with `ray stop`,
# which stops every Ray of this user on a machine; and latency is timed where nobody else is.
set -euo pipefail
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=${hosts%%$'\n'*}:$((20000 + SLURM_JOB_ID % 10000))
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1
start=(--num-cpus 8 --num-gpus 0)
command=(sh -c 'run=$0; if [ -e "$run/run.json" ]; then exec autoprune resume "$run" --address auto; fi; exec autoprune "$@" --address auto -o "$run"' runs/autoprune search my-org/my-bert --dataset my-org/reviews --budget 20MB --workers 16 --latency-node edge)
export label=latency-node=edge
# The last machine has the label; the first is the head, where the driver runs.
# shellcheck disable=SC2016
node='address=$1; shift; if [ -n "$label" ] && [ "$SLURM_NODEID" -eq $((SLURM_JOB_NUM_NODES - 1)) ]; then set -- --labels "$label" "$@"; fi; exec ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" "$@"'
srun bash -c "$node" node "$address" "${start[@]}" -- "${command[@]}"

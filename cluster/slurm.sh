#!/usr/bin/env bash
# A search on Slurm, from the root of the repository: sbatch cluster/slurm.sh --space full --num-samples 200
# The options are those of `python -m mtlsearch.tune`. At its time limit the job queues itself again and goes on.
#
# MTLSEARCH_STORAGE  folder on the shared file system for studies (must be set)
# MTLSEARCH_STUDY    name of the study (default: name and number of the job)
# MTLSEARCH_VENV     virtual environment on the shared file system (default: .venv of the folder you submit from)
# MTLSEARCH_RUN      how trials run (default: --executor ray_train --workers-per-trial 1 --gpus-per-worker 1)
#
#SBATCH --job-name=mtlsearch
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
# Ray stops every Ray process of yours on a node when the job ends there, so nodes are not shared
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
# five minutes before the limit, to this script alone
#SBATCH --signal=B:USR1@300
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -euo pipefail

fail() {
    echo "$1" >&2
    exit 2
}

[[ -n ${SLURM_JOB_ID:-} ]] || fail "This script is for Slurm: sbatch cluster/slurm.sh --space full"
: "${MTLSEARCH_STORAGE:?a folder on the shared file system, for example MTLSEARCH_STORAGE=/shared/me/studies}"
[[ $MTLSEARCH_STORAGE == /* ]] || fail "MTLSEARCH_STORAGE=$MTLSEARCH_STORAGE must be an absolute path"
(($#)) || fail "Say what to search: sbatch cluster/slurm.sh --space full"
venv=${MTLSEARCH_VENV:-$SLURM_SUBMIT_DIR/.venv}
[[ -x $venv/bin/ray ]] || fail "$venv has no Ray. Run 'make install' there, or set MTLSEARCH_VENV"
export PATH=$venv/bin:$PATH

study=${MTLSEARCH_STUDY:-$SLURM_JOB_NAME-$SLURM_JOB_ID}
read -r -a run <<<"${MTLSEARCH_RUN:---executor ray_train --workers-per-trial 1 --gpus-per-worker 1}"
mkdir -p "$MTLSEARCH_STORAGE"
# sqlite is for one writer, which the driver is
export MLFLOW_TRACKING_URI=${MLFLOW_TRACKING_URI:-sqlite:///$MTLSEARCH_STORAGE/mlflow.db}

# A token for this job alone, which no other user of the nodes can read.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$MTLSEARCH_STORAGE/.ray-token-$SLURM_JOB_ID
export RAY_USAGE_STATS_ENABLED=0
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")

# This script runs on the allocation's first node, which becomes the head. Its name may stand for 127.0.1.1 here.
addresses=$(hostname -I)
head=${addresses%% *}
# above the ports of Ray's workers, and another for each job
port=$((20000 + SLURM_JOB_ID % 10000))

trap 'echo "The time limit is near: queued again, $study goes on then"; scontrol requeue "$SLURM_JOB_ID"' USR1

srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --kill-on-bad-exit=1 \
    ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
    -- "$SLURM_SUBMIT_DIR/cluster/study.sh" "$MTLSEARCH_STORAGE/$study" \
    "${run[@]}" -- "$@" &
running=$!
# in the background, because bash runs a trap only between commands; `wait` returns early when one ran
status=0
wait "$running" || status=$?
while kill -0 "$running" 2>/dev/null; do
    status=0
    wait "$running" || status=$?
done
exit "$status"

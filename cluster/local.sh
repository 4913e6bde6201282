#!/usr/bin/env bash
# A Ray cluster of two nodes on this machine, for trying things: cluster/local.sh start | stop | status
# It listens on 127.0.0.1 alone and answers only who has its token.
set -euo pipefail

usage="cluster/local.sh start [--cpus N] [--gpus N] [--port N] [--dashboard-port N] | stop | status

  --cpus            CPUs of each of the two nodes (default: half of this machine's)
  --gpus            GPUs of the head (default: 0)
  --port            port of the head (default: 6379)
  --dashboard-port  port of dashboard and job server (default: 8265)

Token, logs and process id are in MTLSEARCH_CLUSTER_DIR (default: ~/.mtlsearch/cluster)."

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${MTLSEARCH_CLUSTER_DIR:-$HOME/.mtlsearch/cluster}
token=$folder/auth_token
state=$folder/state
log=$folder/nodes.log
seconds_to_start=120
seconds_to_stop=30

die() {
    echo "$1" >&2
    exit 2
}

python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=$(command -v python3 || true)
[[ -n $python ]] || die "No Python was found. Run 'make install', or name one: PYTHON=/path/to/python cluster/local.sh"

running() {
    [[ -f $state ]] || return 1
    # shellcheck source=/dev/null
    source "$state"
    # a number may have gone to someone else's process since
    [[ $(ps -ww -p "$pid" -o args= 2>/dev/null) == *"$temp"* ]]
}

left() {
    # the dashboard's helpers do not name the cluster's folder; they are known by their session
    pgrep -f -- "$temp" >/dev/null || pgrep --runstates D,R,S --session "$pid" >/dev/null
}

taken() {
    (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Ray's 127.0.0.1 is "every interface" unless clusters are switched off by this variable.
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token
export RAY_USAGE_STATS_ENABLED=0
unset RAY_AUTH_TOKEN RAY_ADDRESS
# a job's `python` is the one that runs the cluster
PATH=$(dirname "$python"):$PATH

show() {
    echo "running: two nodes, $cpus CPUs each; head 127.0.0.1:$port, jobs http://127.0.0.1:$dashboard_port"
    echo "In the shell from which you submit:"
    echo "  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token"
    echo "  export RAY_API_SERVER_ADDRESS=http://127.0.0.1:$dashboard_port"
}

start() {
    local cpus gpus=0 port=6379 dashboard_port=8265
    cpus=$(($("$python" -c 'import os; print(os.cpu_count() or 1)') / 2))
    ((cpus > 0)) || cpus=1
    while (($#)); do
        [[ ${2:-} =~ ^[0-9]+$ ]] || die "$1 ${2:-}: a number is needed"$'\n\n'"$usage"
        case $1 in
            --cpus) cpus=$2 ;;
            --gpus) gpus=$2 ;;
            --port) port=$2 ;;
            --dashboard-port) dashboard_port=$2 ;;
            *) die "unknown option $1"$'\n\n'"$usage" ;;
        esac
        shift 2
    done
    ((cpus > 0)) || die "--cpus 0: a node needs at least 1"
    if (running); then
        die "A cluster of $folder is running already. See it with 'cluster/local.sh status', end it with 'cluster/local.sh stop'."
    fi
    "$python" -c 'import ray.dashboard.optional_deps' 2>/dev/null ||
        die "$python has no ray[default]. Run 'make install', or name one that has: PYTHON=/path/to/python cluster/local.sh start"
    taken "$port" &&
        die "Something listens on port $port already, perhaps another Ray. End it, or choose another: --port N"
    taken "$dashboard_port" &&
        die "Something listens on port $dashboard_port already, perhaps another Ray. End it, or choose another: --dashboard-port N"

    mkdir -p "$folder"
    chmod 700 "$folder"
    rm -f "$token" "$state"
    (umask 077 && "$python" -c 'import secrets; print(secrets.token_hex(32), end="")' >"$token")
    # Not in the folder: a socket's path may have 107 characters, and Ray's names take 70 of them. Not Ray's default
    # either, where a job finds the address of whichever Ray was started last.
    local temp
    temp=$(mktemp -d /tmp/ray-XXXXXX)
    export RAY_TMPDIR=$temp
    # a session of its own, so that Ctrl-C in this terminal does not reach it
    "$python" -c 'import os, sys; os.setsid(); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])' \
        "$root/cluster/local.py" --port "$port" --dashboard-port "$dashboard_port" --cpus "$cpus" --gpus "$gpus" \
        --temp "$temp" >"$log" 2>&1 </dev/null &
    local pid=$!
    printf '%s=%q\n' pid "$pid" temp "$temp" port "$port" dashboard_port "$dashboard_port" cpus "$cpus" >"$state"
    for ((waited = 0; waited < 5 * seconds_to_start; waited++)); do
        if [[ -f $temp/ready ]]; then
            show
            return
        fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.2
    done
    stop >/dev/null
    tail -n 20 "$log" >&2
    die "The cluster did not start; its whole log is $log"
}

stop() {
    if ! running; then
        echo "not running"
        return
    fi
    kill "$pid" 2>/dev/null || true
    for ((waited = 0; waited < 5 * seconds_to_stop; waited++)); do
        left || break
        sleep 0.2
    done
    pkill -KILL -f -- "$temp" || true
    pkill -KILL --session "$pid" || true
    rm -rf "$temp" "$state" "$token"
    echo "stopped"
}

status() {
    if ! running; then
        echo "not running"
        return 1
    fi
    show
    ray status --address "127.0.0.1:$port"
}

command=${1:-}
(($# > 0)) && shift
case $command in
    start) start "$@" ;;
    stop | status) "$command" ;;
    *) die "$usage" ;;
esac

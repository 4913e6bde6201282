#!/usr/bin/env bash
# Begins a study, or goes on with it where it exists: study.sh PLACE RUN-OPTIONS -- STUDY-OPTIONS
# PLACE is the study's folder on a file system that every node mounts, or its URI in an object store.
# What is searched (STUDY-OPTIONS) is said once, at the beginning, and kept in the study; how it runs, each time.
#   study.sh /shared/studies/full --executor ray_train -- --space full --num-samples 200
#   study.sh s3://bucket/studies/full --executor ray_train -- --space full --num-samples 200
#
# MTLSEARCH_RESULTS  of a study at a URI: the head's own folder for it (default: ~/mtlsearch-results)
set -euo pipefail

fail() {
    echo "$1. Usage: study.sh PLACE RUN-OPTIONS -- STUDY-OPTIONS" >&2
    exit 2
}

place=${1:-}
[[ $place == *://*/* || $place == /*/* ]] ||
    fail "The study's place is a URI, or an absolute path on storage that every node sees, not '$place'"
shift

run=()
while (($#)) && [[ $1 != -- ]]; do
    run+=("$1")
    shift
done
(($#)) || fail "A -- is needed between the options of the run and those of the study"
shift

if [[ $place == *://* ]]; then
    address=${place%%\?*} # what follows a ? are options of the store
    name=${address##*/}
    run+=(--storage-path "${address%/*}${place#"$address"}")
    results=${MTLSEARCH_RESULTS:-$HOME/mtlsearch-results}
    folder=$results/$name
    # Only the store can say whether the study exists. Where it does not answer, neither does it to tune, which says so;
    # and tune begins no study of a name that is taken.
    [[ -f $folder/space.yaml ]] ||
        python -m mtlsearch.study fetch "$place" --to "$results" --no-weights >/dev/null 2>&1 || true
else
    results=$(dirname "$place")
    name=$(basename "$place")
    folder=$place
fi

if [[ -f $folder/space.yaml ]]; then
    echo "$place exists: the study goes on"
    exec python -m mtlsearch.tune --resume "$folder" "${run[@]}"
fi
exec python -m mtlsearch.tune --results "$results" --name "$name" "${run[@]}" "$@"

#!/usr/bin/env bash
# Begins a study, or goes on with it where its folder exists: study.sh FOLDER RUN-OPTIONS -- STUDY-OPTIONS
# What is searched (STUDY-OPTIONS) is said once, at the beginning, and kept in the folder; how it runs, each time.
#   study.sh /shared/studies/full --executor ray_train -- --space full --num-samples 200
set -euo pipefail

fail() {
    echo "$1. Usage: study.sh FOLDER RUN-OPTIONS -- STUDY-OPTIONS" >&2
    exit 2
}

folder=${1:-}
[[ $folder == /*/* ]] || fail "The study's folder is an absolute path on storage that every node sees, not '$folder'"
shift

run=()
while (($#)) && [[ $1 != -- ]]; do
    run+=("$1")
    shift
done
(($#)) || fail "A -- is needed between the options of the run and those of the study"
shift

if [[ -f $folder/space.yaml ]]; then
    echo "$folder exists: the study goes on"
    exec python -m mtlsearch.tune --resume "$folder" "${run[@]}"
fi
exec python -m mtlsearch.tune --results "$(dirname "$folder")" --name "$(basename "$folder")" "${run[@]}" "$@"

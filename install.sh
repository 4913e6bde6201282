#!/bin/sh
# Sets up the virtual environment: install.sh FOLDER NEEDED_GB. Called by the Makefile.
set -eu
venv=$1
needed_gb=$2

find_python() {
    for name in ${PYTHON3:-} python3.12 python3.11 python3.13 python3.10 python3 python; do
        if "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
}

python=$(find_python)
if [ -z "$python" ]; then
    echo "No Python between 3.10 and 3.13 was found. Install one, for example with:" >&2
    echo "    apt-get install python3 python3-venv        (Debian, Ubuntu)" >&2
    echo "    brew install python@3.12                    (macOS)" >&2
    echo "or name one: make PYTHON3=/path/to/python3.12 install" >&2
    exit 2
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "$python has no venv. Install it, for example with: apt-get install python$version-venv" >&2
    exit 2
fi

if [ ! -x "$venv/bin/python" ]; then
    free_gb=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
    if [ "$free_gb" -lt "$needed_gb" ]; then
        echo "$free_gb GB are free here and the environment needs $needed_gb GB (torch's CUDA libraries most of it)." >&2
        echo "Free some space, or clone to another disk." >&2
        exit 2
    fi
    echo "Setting up $venv with $("$python" --version) (about 7 GB to download, once) ..."
    "$python" -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --upgrade pip
"$venv/bin/python" -m pip install --quiet --constraint constraints.txt --editable '.[search,test]'

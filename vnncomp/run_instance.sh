#!/bin/bash
# One instance: ./run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT
# Writes RESULTS: sat (with a counterexample), unsat, unknown or timeout.
set -u

if [ $# -ne 6 ] || [ "$1" != v1 ]; then
    echo "usage: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT" >&2
    exit 1
fi
category=$2
network=$3
property=$4
results=$5
timeout=$6

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${LPVERIFY_PYTHON:-$here/environment/bin/python}

export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m lpverify vnncomp "$category" "$network" "$property" "$results" "$timeout"

#!/bin/bash
# Before an instance: ./prepare_instance.sh v1 CATEGORY ONNX VNNLIB
# Ends with 0 if lpverify can read the network; any other code means that the instance should be skipped.
set -u

if [ $# -lt 4 ] || [ "$1" != v1 ]; then
    echo "usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB" >&2
    exit 1
fi
network=$3
property=$4

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${LPVERIFY_PYTHON:-$here/environment/bin/python}

if [ ! -f "$property" ]; then
    echo "prepare_instance.sh: there is no file $property" >&2
    exit 1
fi
PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" "$python" -m lpverify info "$network" > /dev/null

#!/bin/bash
# Install lpverify for VNN-COMP: ./install_tool.sh v1
# Makes the environment vnncomp/environment beside this script (PYTHON: the interpreter to start from, 3.11 or later).
set -euo pipefail

version=${1:-}
if [ "$version" != v1 ]; then
    echo "install_tool.sh: expected the version string v1, got '$version'" >&2
    exit 1
fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"${PYTHON:-python3}" -m venv "$here/environment"
"$here/environment/bin/python" -m pip install --quiet --upgrade pip
"$here/environment/bin/python" -m pip install --quiet "$here/.."
"$here/environment/bin/lpverify" --version

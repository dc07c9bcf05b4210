#!/usr/bin/env bash
# Prints the interpreter for the virtual environment: the first one given whose version is supported.
#   tools/choose_python.sh "3.12 3.11" python3.12 python3.11 python3
set -euo pipefail

versions=$1
shift
tried=()
for python in "$@"; do
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || {
        tried+=("$python (does not run)")
        continue
    }
    if [[ " $versions " == *" $version "* ]]; then
        command -v "$python"
        exit 0
    fi
    tried+=("$python (is $version)")
done

cat >&2 <<MESSAGE
lightasr runs on Python ${versions// / or }; tried: $(printf '%s, ' "${tried[@]}" | sed 's/, $//').
Install one, or name one that is not on PATH: make setup PYTHON=/opt/python-3.12/bin/python3
Without root: conda env create --file environment.yml, or uv python install 3.12.
MESSAGE
exit 1

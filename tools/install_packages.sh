#!/usr/bin/env bash
# Installs packages into a virtual environment with uv, from the package index pip is set up for.
#   tools/install_packages.sh .venv --requirement requirements.lock
set -euo pipefail

venv=$1
shift

# uv does not read pip's settings, and a site with a mirror of PyPI names it, and the certificate
# of its proxy, there.
pip_setting() { "$venv/bin/pip" config get "global.$1" 2>/dev/null || true; }
index=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$(pip_setting index-url)}}
certificate=${SSL_CERT_FILE:-${PIP_CERT:-$(pip_setting cert)}}
[[ -z $index ]] || export UV_DEFAULT_INDEX=$index
[[ -z $certificate ]] || export SSL_CERT_FILE=$certificate

# Of some 200 packages only the large ones (100 MiB and more) are named as they download.
small='^ *Downloading .* \(([0-9]+\.[0-9]+KiB|[0-9]{1,2}\.[0-9]MiB)\)$'
# Compiled now, once: where PYTHONDONTWRITEBYTECODE is set, as in many containers, every start of
# every job would compile torch again.
"$venv/bin/uv" pip install --compile-bytecode --python "$venv/bin/python" "$@" 2>&1 |
    sed -u -E "/^ [-+~] /d; /^ *Downloaded /d; /$small/d"

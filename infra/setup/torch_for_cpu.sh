#!/usr/bin/env bash
# Installs torch without CUDA into a virtual environment: `infra/setup/torch_for_cpu.sh .venv/bin/python`.
# That is 0.2 GB to load, not 3 GB. TORCH_INDEX_URL may name an index that has such builds. Else pip's own index is asked
# for one (PyPI has none and says so at once); then uv, which knows where PyTorch keeps its own. Fails where none is found.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=${1:?usage: infra/setup/torch_for_cpu.sh PYTHON}
readonly UV_VERSION=0.13.9 # only to find PyTorch's CPU builds; not kept
version=$(sed -n 's/^torch==//p' requirements/train.txt)

pip_install() {
    "$python" -m pip --disable-pip-version-check install --quiet --no-input --no-compile --no-deps "$@"
}

install_from_named_index() {
    [ -n "${TORCH_INDEX_URL:-}" ] && pip_install --index-url "$TORCH_INDEX_URL" "torch==$version"
}

install_from_own_index() { pip_install --retries 0 --timeout 10 "torch==$version+cpu"; }

install_with_uv() {
    local folder status=0
    folder=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder's name is known now
    trap "rm -rf '$folder'" EXIT
    pip_install --retries 0 --timeout 15 --target "$folder" "uv==$UV_VERSION" &&
        UV_HTTP_TIMEOUT=15 UV_HTTP_RETRIES=0 UV_PYTHON_DOWNLOADS=never "$folder/bin/uv" pip install --quiet --no-deps \
            --python "$python" --torch-backend=cpu "torch==$version" || status=$?
    rm -rf "$folder"
    trap - EXIT
    return $status
}

install_from_named_index || install_from_own_index || install_with_uv

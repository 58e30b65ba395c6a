#!/usr/bin/env bash
# Makes .venv and installs one set of requirements into it: `infra/setup/install.sh demo`, `… experiments` or `… test`.
# `… bench` makes .venv-bench: Flower, whose pins contradict ours, so that `make bench-federated` can measure it too.
# No root, no compiler for `demo` and `experiments`. A second run finds its stamp and ends at once; an interrupted one is continued.
set -euo pipefail
# pip answers Ctrl-C with an ordinary failure; without these, what comes after a failed step would be tried.
trap 'exit 130' INT
trap 'exit 143' TERM HUP
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

TORCH_VERSION=$(sed -n 's/^torch==//p' requirements/train.txt)
readonly TORCH_VERSION

set_name=${1:-}
case $set_name in
demo | experiments | test) readonly VENV=.venv ;;
bench) readonly VENV=.venv-bench ;;
*)
    echo "usage: infra/setup/install.sh demo|experiments|test|bench" \
        "  (demo: everything one machine needs; experiments: that and the linear baseline's library;" \
        "test: that and the tests' tools; bench: Flower, beside it)" >&2
    exit 2
    ;;
esac
readonly LOG="$PWD/$VENV/install.log"

say() { printf '[setup] %s\n' "$*"; }
fail() {
    printf '[setup] %s\n' "$@" >&2
    exit 1
}

fingerprint() { # of all that decides what is installed; the path too, as a moved .venv has scripts that start elsewhere
    { pwd && cat requirements/*.txt infra/setup/install.sh infra/setup/torch_for_cpu.sh; } | cksum | tr ' ' '-'
}

stamped() { [ "$(cat "$VENV/installed-$1" 2>/dev/null)" = "$2" ]; }

installed() { # everything in `demo` is in `experiments`, and everything in that is in `test`
    [ -x "$VENV/bin/python" ] || return 1
    stamped "$set_name" "$1" || stamped test "$1" || { [ "$set_name" = demo ] && stamped experiments "$1"; }
}

is_python_311() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; }

can_make_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

find_python() {
    local candidate without_venv=''
    for candidate in "${PYTHON:-}" python3.11 python3 python "$(uv python find 3.11 2>/dev/null || true)" \
        "$HOME"/.pyenv/versions/3.11.*/bin/python; do
        if [ -n "$candidate" ] && is_python_311 "$candidate"; then
            if can_make_venv "$candidate"; then
                echo "$candidate"
                return
            fi
            without_venv=$candidate
        fi
    done
    [ -z "$without_venv" ] || fail "$without_venv cannot make a virtual environment, and no other Python 3.11 was found." \
        "On Debian: apt install python3.11-venv" \
        "or name one that can: PYTHON=/path/to/python3.11 make setup"
    fail "Python 3.11 is needed and was not found (python3 here: $(python3 --version 2>&1 || true))." \
        "Install it and run this again:" \
        "  Debian 12: apt install python3.11 python3.11-venv" \
        "  Fedora:    dnf install python3.11" \
        "  macOS:     brew install python@3.11" \
        "  elsewhere: uv python install 3.11, or pyenv install 3.11" \
        "or name one: PYTHON=/path/to/python3.11 make setup"
}

make_venv() {
    local python="$VENV/bin/python"
    if [ -x "$python" ] && is_python_311 "$python" && "$python" -m pip --version >/dev/null 2>&1 &&
        [ "$(cat "$VENV/made-at" 2>/dev/null)" = "$PWD" ]; then
        return
    fi
    python=$(find_python)
    say "making $VENV with $("$python" --version)"
    "$python" -m venv --clear "$VENV" || fail "$python could not make a virtual environment (the lines above say why)."
    pwd >"$VENV/made-at"
}

# Not compiled ahead: half of the byte code (0.2 GB, 20 s) would never be used; Python writes the rest when it imports.
pip_install() {
    "$VENV/bin/python" -m pip --disable-pip-version-check install --quiet --no-input --no-compile "$@" >>"$LOG" 2>&1
}

has_torch() {
    .venv/bin/python -c "
import importlib.metadata as m, sys
sys.exit(m.version('torch').partition('+')[0] != '$TORCH_VERSION')" 2>/dev/null
}

install_torch() {
    has_torch && return
    if [ "$(uname -s)" = Linux ] && ! nvidia-smi -L >/dev/null 2>&1; then
        say "installing torch $TORCH_VERSION for the CPU (about 0.2 GB to load)"
        if infra/setup/torch_for_cpu.sh .venv/bin/python >>"$LOG" 2>&1; then return; fi
        say "no CPU build of torch within reach; taking the index's own, which may bring CUDA (about 3 GB to load)"
    else
        say "installing torch $TORCH_VERSION"
    fi
    pip_install -c requirements/lock.txt "torch==$TORCH_VERSION" || show_log_and_fail "torch $TORCH_VERSION"
}

show_log_and_fail() {
    tail -n 15 "$LOG" >&2
    fail "Could not install $1 (the lines above; all of it in $LOG)." \
        "Is the network, or the package index that pip is configured for (pip config list), within reach?" \
        "Running the same command again continues where this ended."
}

install_requirements() {
    say "installing requirements/$set_name.txt"
    pip_install -r "requirements/$set_name.txt" "$@" ||
        show_log_and_fail "requirements/$set_name.txt"
}

compile_messages() {
    local po
    for po in locale/*/LC_MESSAGES/*.po; do
        if [ -f "$po" ] && [ ! "${po%.po}.mo" -nt "$po" ]; then
            .venv/bin/python -m infra.setup.compile_messages
            return
        fi
    done
}

# A link leads to an environment that several checkouts share: whoever made it keeps it up to date.
if [ -L "$VENV" ]; then
    exit 0
fi

wanted=$(fingerprint)
if ! installed "$wanted"; then
    started=$SECONDS
    make_venv
    : >"$LOG"
    if [ "$set_name" = bench ]; then
        install_requirements # the lock's versions are those of .venv
    else
        install_torch
        install_requirements -c requirements/lock.txt
    fi
    echo "$wanted" >"$VENV/installed-$set_name"
    say "ready in $((SECONDS - started)) s"
fi
[ "$set_name" = bench ] || compile_messages

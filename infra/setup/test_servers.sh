#!/usr/bin/env bash
# The programs the tests drive for real: MariaDB, Redis, nginx, Chromium, gettext, and what compiles mysqlclient.
# With everything there it does nothing and needs no root. On Debian and its like it installs what is missing;
# elsewhere it says what that is. It leaves no service running: `python -m tests.servers` starts its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf '[setup] %s\n' "$*"; }

# What shows that a package is there (a program, a file, a font), and the Debian package that brings it.
# A developer may have any of them from elsewhere, so packages are asked for last.
missing_packages() {
    have_program mariadbd mysqld || echo mariadb-server
    have_program mariadb-install-db mysql_install_db || echo mariadb-server
    have_program redis-server valkey-server || echo redis-server
    have_program docker-registry registry || echo docker-registry
    have_program skopeo || echo skopeo
    [ -x "${CHROMIUM:-}" ] || have_program chromium chromium-browser google-chrome || echo chromium
    has_chinese_font || echo fonts-noto-cjk fonts-noto-color-emoji
    have_program nginx || echo nginx
    have_program msgfmt || echo gettext
    have_program xgettext || echo gettext
    can_make_venv || echo python3.11-venv
    mysqlclient_is_built && return
    have_program mariadb_config mysql_config || echo default-libmysqlclient-dev
    have_program pkg-config || echo pkg-config
    have_program cc gcc || echo build-essential
    has_python_headers || echo python3.11-dev
}

have_program() {
    local name
    for name in "$@"; do
        PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$name" >/dev/null && return
    done
    return 1
}

has_chinese_font() { [ "$(uname -s)" = Darwin ] || [ -n "$(fc-list ':lang=zh-cn' file 2>/dev/null)" ]; }

# .venv is made after this, from the first Python 3.11 there is.
python_311() {
    local candidate
    for candidate in .venv/bin/python python3.11 python3; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo "$candidate" && return
    done
    return 1
}

can_make_venv() { [ -x .venv/bin/python ] || "$(python_311)" -c 'import ensurepip, venv' 2>/dev/null; }

mysqlclient_is_built() { .venv/bin/python -c 'import MySQLdb' 2>/dev/null; }

has_python_headers() {
    local folder
    folder=$("$(python_311)" -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null) && [ -f "$folder/Python.h" ]
}

install_with_apt() {
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    # A package's own start of its service is refused while this policy stands; one that was there before stays.
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
        "${as_root[@]}" chmod +x $policy
        # shellcheck disable=SC2064 # both are known now
        trap "${as_root[*]} rm -f $policy" EXIT
    fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
    stay_stopped "$@"
}

stay_stopped() { # services that this installed must not come up at the next boot either
    [ -d /run/systemd/system ] || return 0
    local package
    for package in "$@"; do
        case $package in
        mariadb-server) "${as_root[@]}" systemctl disable --now mariadb ;;
        redis-server) "${as_root[@]}" systemctl disable --now redis-server ;;
        nginx) "${as_root[@]}" systemctl disable --now nginx ;;
        docker-registry) "${as_root[@]}" systemctl disable --now docker-registry ;;
        esac
    done
}

may_use_apt() {
    command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }; }
}

# shellcheck disable=SC2207 # one word a package; macOS has no mapfile
missing=($(missing_packages | sort -u))
[ ${#missing[@]} -gt 0 ] || exit 0

if ! may_use_apt; then
    say "The tests need what is missing here; in Debian's names: ${missing[*]}" >&2
    command -v apt-get >/dev/null && say "As root: apt-get install ${missing[*]}" >&2
    exit 1
fi
say "installing for the tests: ${missing[*]}"
install_with_apt "${missing[@]}"

# shellcheck disable=SC2207 # one word a package; macOS has no mapfile
missing=($(missing_packages | sort -u))
if [ ${#missing[@]} -gt 0 ]; then
    say "installed, and still not found: ${missing[*]}" >&2
    exit 1
fi

# Sourced by backup.sh and restore.sh: the client programs of MySQL or MariaDB, whichever the image has, and how they
# reach the database.
# shellcheck shell=bash

say() { printf '[%s] %s\n' "$(date -u +%H:%M:%S)" "$*"; }
fail() {
    say "$@" >&2
    exit 1
}

find_program() { # the first of these names that is installed
    local name
    for name in "$@"; do command -v "$name" && return; done
    fail "none of $* is in this image: take the image of the database"
}

: "${MYSQL_HOST:?}" "${MYSQL_DATABASE:?}" "${MYSQL_USER:?}" "${MYSQL_PASSWORD:?}"
readonly BACKUP_DIR=${BACKUP_DIR:-/backups}

# The password stands in a file of this pod's memory, not in an argument that every process list shows.
umask 077
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
readonly CREDENTIALS=$scratch/client.cnf
printf '[client]\nhost=%s\nport=%s\nuser=%s\npassword="%s"\n' \
    "$MYSQL_HOST" "${MYSQL_PORT:-3306}" "$MYSQL_USER" "$MYSQL_PASSWORD" >"$CREDENTIALS"

client() { "$(find_program mariadb mysql)" --defaults-extra-file="$CREDENTIALS" --default-character-set=utf8mb4 "$@"; }

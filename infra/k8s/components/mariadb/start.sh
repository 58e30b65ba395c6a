#!/usr/bin/env bash
# Fills an empty volume, makes the database and its user, and becomes the server. Options of the server follow.
# The password of the user is set at every start: rotating the Secret and restarting is enough.
set -euo pipefail

: "${MYSQL_DATABASE:?}" "${MYSQL_USER:?}" "${MYSQL_PASSWORD:?}" "${MYSQL_ROOT_PASSWORD:?}"
readonly DATA=${MYSQL_DATA:-/var/lib/mysql} RUN=${MYSQL_RUN:-/var/run/mysqld} SCRATCH=${TMPDIR:-/tmp}
export PATH=$PATH:/usr/sbin:/usr/local/sbin

quoted() { # as a string of SQL
    local text=${1//\\/\\\\}
    printf "'%s'" "${text//\'/\'\'}"
}

name() { printf '\140%s\140' "${1//\`/\`\`}"; } # in backquotes

# Whoever was killed while it filled the volume left this mark; what else is there then has never been used.
readonly FILLING=$DATA/.filling
if [ -e "$FILLING" ] || [ ! -d "$DATA/mysql" ]; then
    if [ -e "$FILLING" ]; then
        for part in "$DATA"/*; do
            [ "$(basename "$part")" = lost+found ] || rm -rf "$part"
        done
    fi
    touch "$FILLING"
    mariadb-install-db --no-defaults --datadir="$DATA" --tmpdir="$SCRATCH" --skip-test-db --skip-name-resolve \
        --auth-root-authentication-method=normal >&2
    sync "$DATA"
    rm "$FILLING"
fi

# The server reads it once when it starts and before it accepts anybody. A statement a line.
umask 077
cat >"$SCRATCH/first.sql" <<END
CREATE DATABASE IF NOT EXISTS $(name "$MYSQL_DATABASE") CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE USER IF NOT EXISTS $(quoted "$MYSQL_USER")@'%';
ALTER USER $(quoted "$MYSQL_USER")@'%' IDENTIFIED BY $(quoted "$MYSQL_PASSWORD");
GRANT ALL ON $(name "$MYSQL_DATABASE").* TO $(quoted "$MYSQL_USER")@'%';
ALTER USER 'root'@'localhost' IDENTIFIED BY $(quoted "$MYSQL_ROOT_PASSWORD");
END
exec mariadbd --no-defaults --datadir="$DATA" --socket="$RUN/mysqld.sock" --pid-file="$RUN/mysqld.pid" \
    --tmpdir="$SCRATCH" --bind-address='*' --init-file="$SCRATCH/first.sql" "$@"

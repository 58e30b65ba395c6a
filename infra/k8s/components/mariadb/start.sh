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

if [ ! -d "$DATA/mysql" ]; then
    # Made beside it and moved: a pod that is killed meanwhile leaves no half of it. A volume may hold lost+found.
    rm -rf "$DATA/.new"
    mariadb-install-db --no-defaults --datadir="$DATA/.new" --tmpdir="$SCRATCH" --skip-test-db \
        --auth-root-authentication-method=normal >&2
    for part in "$DATA/.new"/*; do
        [ "$(basename "$part")" = mysql ] || mv "$part" "$DATA/"
    done
    mv "$DATA/.new/mysql" "$DATA/" # the last, as it is what says that all is there
    rm -rf "$DATA/.new"
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

#!/usr/bin/env bash
# Dumps the database into $BACKUP_DIR/huisheng-<UTC time>.sql.gz with its checksum beside it, then removes old dumps:
# those older than KEEP_DAYS, but never one of the KEEP_LEAST newest. A dump has its name only when it is whole.
set -euo pipefail
# shellcheck source=infra/k8s/base/backup/database.sh
. "$(dirname "${BASH_SOURCE[0]}")/database.sh"

readonly KEEP_DAYS=${KEEP_DAYS:-30} KEEP_LEAST=${KEEP_LEAST:-7}

dump_options() {
    # One snapshot for all tables, and no lock on any. Row by row, so that a large table needs no memory.
    # Without tablespaces: those need a right that the blog's user has no other use for.
    printf '%s\n' --single-transaction --quick --no-tablespaces --skip-lock-tables --routines --triggers --hex-blob
    case $1 in
    *mysqldump) "$1" --help 2>/dev/null | grep -- --set-gtid-purged >/dev/null && echo --set-gtid-purged=OFF ;;
    esac
    return 0
}

write_dump() { # a pipe that breaks anywhere fails, and a dump says itself that it is complete
    local program options
    program=$(find_program mariadb-dump mysqldump)
    mapfile -t options < <(dump_options "$program")
    "$program" --defaults-extra-file="$CREDENTIALS" --default-character-set=utf8mb4 "${options[@]}" "$MYSQL_DATABASE" |
        gzip >"$1"
    [[ $(gzip -dc "$1" | tail -n 1) == '-- Dump completed'* ]] || fail "$1: the dump ends before its end"
}

backups() { # oldest first: their names are their times
    local file
    for file in "$BACKUP_DIR"/huisheng-*.sql.gz; do
        [ ! -e "$file" ] || echo "$file"
    done
}

prune() {
    local oldest_kept all index
    oldest_kept=$BACKUP_DIR/huisheng-$(date -u -d "-$KEEP_DAYS days" +%Y%m%dT%H%M%SZ).sql.gz
    mapfile -t all < <(backups)
    for ((index = 0; index < ${#all[@]} - KEEP_LEAST; index++)); do
        [[ ${all[index]} < $oldest_kept ]] || break
        say "removing ${all[index]}"
        rm -f "${all[index]}" "${all[index]}.sha256"
    done
}

name=huisheng-$(date -u +%Y%m%dT%H%M%SZ).sql.gz
rm -rf "$BACKUP_DIR"/.unfinished-*  # of a pod that was killed
unfinished=$(mktemp -d "$BACKUP_DIR/.unfinished-XXXXXX")
trap 'rm -rf "$scratch" "$unfinished"' EXIT

say "dumping $MYSQL_DATABASE of $MYSQL_HOST to $name"
write_dump "$unfinished/$name"
(cd "$unfinished" && sha256sum "$name" >"$name.sha256")
sync "$unfinished/$name" "$unfinished/$name.sha256"
mv "$unfinished/$name.sha256" "$BACKUP_DIR/"
mv "$unfinished/$name" "$BACKUP_DIR/"
say "done: $(wc -c <"$BACKUP_DIR/$name") bytes"
prune
say "$(backups | wc -l) backups are kept, the oldest $(basename "$(backups | head -n 1)")"

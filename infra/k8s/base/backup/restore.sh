#!/usr/bin/env bash
# Puts the dump FILE (a name in $BACKUP_DIR, or `latest`) in the place of the database. Whatever the database held is
# gone afterwards. Stop what writes to it first: `make restore` does. Exit 2: the database was not touched.
set -euo pipefail
readonly UNTOUCHED=2
# shellcheck source=infra/k8s/base/backup/database.sh
. "$(dirname "${BASH_SOURCE[0]}")/database.sh"

refuse() {
    say "$1. The database was not touched" >&2
    exit "$UNTOUCHED"
}

list_backups() { (cd "$BACKUP_DIR" && for file in huisheng-*.sql.gz; do [ ! -e "$file" ] || echo "$file"; done); }

file=${FILE:-}
[ "$file" != latest ] || file=$(list_backups | tail -n 1)
if [ -z "$file" ] || [ ! -f "$BACKUP_DIR/$(basename "$file")" ]; then
    say "FILE=${FILE:-} is no backup. There are:" >&2
    list_backups >&2
    exit "$UNTOUCHED"
fi
file=$(basename "$file")

cd "$BACKUP_DIR"
say "checking $file"
[ -f "$file.sha256" ] || refuse "$file.sha256 is missing: without its checksum the dump is not trusted"
sha256sum --check --quiet "$file.sha256" || refuse "$file is damaged: its checksum differs"
[[ $(gzip -dc "$file" | tail -n 1) == '-- Dump completed'* ]] || refuse "$file ends before its end"

client --execute 'SELECT 1' >/dev/null || refuse "the database on $MYSQL_HOST does not answer"
say "replacing $MYSQL_DATABASE on $MYSQL_HOST by $file"
# Tables that the dump does not know must not stay behind.
client --execute "DROP DATABASE IF EXISTS \`$MYSQL_DATABASE\`;
    CREATE DATABASE \`$MYSQL_DATABASE\` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;"
gzip -dc "$file" | client "$MYSQL_DATABASE"
say "done: $(client --batch --skip-column-names --execute 'SHOW TABLES' "$MYSQL_DATABASE" | wc -l) tables"

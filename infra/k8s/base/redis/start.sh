#!/bin/sh
# Redis with the settings beside this file and the password of the environment, which no process list shows.
# Options of the server follow.
set -eu
exec redis-server - "$@" <<END
$(cat "$(dirname "$0")/redis.conf")
dir ${REDIS_DATA:-/data}
requirepass ${REDIS_PASSWORD:?the Secret huisheng-redis must hold it}
END

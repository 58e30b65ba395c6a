#!/bin/sh
# Redis with the settings beside this file and the password of the environment, which no process list shows.
set -eu
exec redis-server - <<END
$(cat /etc/redis/redis.conf)
requirepass ${REDIS_PASSWORD:?the Secret huisheng-redis must hold it}
END

#!/bin/sh
# What the gateway image runs: nginx as NGINX_ROLE says, `gateway` (the default) or `store`. Options go to nginx.
set -eu

role=${NGINX_ROLE:-gateway}
configuration=/etc/huisheng/nginx/$role.conf
if [ ! -r "$configuration" ]; then
    echo "huisheng: NGINX_ROLE is '$role' and there is no $configuration. Say gateway or store" >&2
    exit 64
fi
# -e: until it has read its configuration nginx would log to a file, which is read-only here.
exec nginx -e /dev/stderr -c "$configuration" -g 'daemon off;' "$@"

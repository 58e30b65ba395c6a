#!/bin/sh
# What the gateway image runs: nginx as NGINX_ROLE says, `gateway` (the default) or `store`. Options go to nginx.
set -eu
exec /etc/huisheng/nginx/start.sh "${NGINX_ROLE:-gateway}" "$@"

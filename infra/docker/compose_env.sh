#!/usr/bin/env bash
# Makes infra/.env, the secrets of infra/compose.yaml, once: `infra/docker/compose_env.sh`, or `make compose-env`.
# One that is there stays: the database remembers its first password.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly FILE=${1:-infra/.env}

random_hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

if [ -e "$FILE" ]; then
    echo "[compose] $FILE is there and stays as it is"
    exit 0
fi
umask 077
{
    echo "# Made by make compose-env for this machine alone. Kept by git from being committed."
    echo "SECRET_KEY=$(random_hex 48)"
    for name in MYSQL_PASSWORD MYSQL_ROOT_PASSWORD REDIS_PASSWORD INFERENCE_TOKEN; do
        echo "$name=$(random_hex 24)"
    done
} >"$FILE.unfinished"
mv "$FILE.unfinished" "$FILE"
echo "[compose] made $FILE; settings of infra/compose.yaml may be added to it, such as HTTP_PORT or LABELLER"

#!/bin/sh
# What the web image runs: `web` (the default), `worker`, `beat`, `migrate`, or `manage COMMAND …`; options follow.
# Each becomes the process itself, so that SIGTERM reaches it.
set -eu

# What an earlier process of this pod left: its signs of life are not this one's.
forget_signs() {
    rm -f ${READY_FILE:+"$READY_FILE"} ${HEARTBEAT_FILE:+"$HEARTBEAT_FILE"}
}

command=${1:-web}
[ $# -eq 0 ] || shift

case $command in
web)
    exec gunicorn --config python:blog_site.gunicorn_conf "$@" blog_site.wsgi
    ;;
worker)
    forget_signs
    # Threads: tasks wait for HTTP. One that takes no queue (WORKER_QUEUES) would leave labels waiting.
    exec celery -A blog_site worker --loglevel "${LOG_LEVEL:-INFO}" --pool threads \
        --concurrency "${WORKER_CONCURRENCY:-4}" --queues "${WORKER_QUEUES:-celery,labels}" \
        --without-gossip --without-mingle "$@"
    ;;
beat)
    forget_signs
    # The schedule is rows of the database; no file of its own, no pid file.
    exec celery -A blog_site beat --loglevel "${LOG_LEVEL:-INFO}" --pidfile '' "$@"
    ;;
migrate)
    exec python manage.py migrate --no-input "$@"
    ;;
manage)
    exec python manage.py "$@"
    ;;
*)
    echo "huisheng: unknown command '$command'. Say web, worker, beat, migrate, or manage COMMAND" \
        "(like: manage createsuperuser)" >&2
    exit 64
    ;;
esac

#!/bin/sh
# Starts nginx as the gateway before the blog, or as the artifact store: `start.sh gateway|store [OPTION OF NGINX …]`.
# It becomes nginx itself. Everything comes from the environment; each has a default but for the store's token.
#
#   both      PORT (8080) · WORKERS (the container's processors) · RUN_DIR (/tmp/nginx): what is written while running
#   gateway   WEB_ADDRESS (web:8000) · STATIC_ROOT (/srv/static) · MAX_BODY_SIZE (2m)
#             MAX_IMAGE_SIZE (11m): of a body with a picture · PICTURE_CACHE_SIZE (128m): on disk, in RUN_DIR
#             PICTURE_FRESH_SECONDS (60): how long a picture is served before it is asked whether it is still there
#             TRUSTED_PROXIES (none): addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed
#             PAGES_PER_SECOND (30) PAGES_BURST (120) · WRITES_PER_SECOND (10) WRITES_BURST (40)
#             SIGN_INS_PER_MINUTE (60) SIGN_INS_BURST (20): of one address; more are answered 429
#             WEB_IDLE_SECONDS (55): how long a connection to a web process is kept; less than gunicorn keeps it
#             WEB_LOOKUP_SECONDS (5): how often WEB_ADDRESS is looked up again
#   store     ARTIFACT_STORE_TOKEN · ARTIFACT_STORE_RUN_TOKEN · ARTIFACT_STORE_READ_TOKEN: one each or several with
#             spaces between, so that one can be exchanged without a gap · ARTIFACT_STORE_SIGNING_KEY (none is signed)
#             each also as NAME_FILE, a file that holds it · STORE_ROOT (/srv/store)
set -eu

newline='
'

fail() {
    echo "start.sh: $*" >&2
    exit 64
}

# must_be NAME PATTERN MEANING: the variable's value goes into a configuration, so nothing else may stand in it.
must_be() {
    value=
    eval "value=\$$1"
    case $value in *"$newline"*) fail "$1 has more than one line: expected $3" ;; esac
    printf '%s\n' "$value" | grep -Eqx "$2" || fail "$1 is '$value': expected $3"
}

# read_secret NAME: take it from NAME_FILE where that is set; check it without showing it.
read_secret() {
    eval "file=\${$1_FILE:-}"
    [ -z "$file" ] || eval "$1=\$(cat \"\$file\")" || fail "$1_FILE names a file that cannot be read: $file"
    eval "value=\${$1:-}"
    printf '%s\n' "$value" | tr '\n' ' ' | grep -Eq '^[A-Za-z0-9._~+/= -]*$' ||
        fail "$1 may hold letters, digits and . _ ~ + / = - alone"
    eval "$1=\$value"
    for secret in $value; do
        [ ${#secret} -ge 20 ] || fail "$1 has a secret of ${#secret} characters: at least 20 are wanted"
    done
}

# The processors that the container may use; nginx itself would count the machine's.
count_processors() {
    processors=$(getconf _NPROCESSORS_ONLN)
    if [ -r /sys/fs/cgroup/cpu.max ]; then
        read -r quota period </sys/fs/cgroup/cpu.max
    elif [ -r /sys/fs/cgroup/cpu/cpu.cfs_quota_us ]; then
        quota=$(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us)
        period=$(cat /sys/fs/cgroup/cpu/cpu.cfs_period_us)
    fi
    case ${quota:-max} in
    max | -1) ;;
    *) [ $((quota / period)) -ge "$processors" ] || processors=$((quota / period)) ;;
    esac
    [ "$processors" -ge 1 ] || processors=1
    echo "$processors"
}

render() {
    script=
    for name in $variables; do
        eval "value=\$$name"
        script="$script;s|@$name@|$value|g"
    done
    sed "${script#;}" "$PARTS/$role.conf" >"$RUN_DIR/$role.conf"
}

# -- The gateway ---------------------------------------------------------------------------------------------------

prepare_gateway() {
    WEB_ADDRESS=${WEB_ADDRESS:-web:8000} STATIC_ROOT=${STATIC_ROOT:-/srv/static} MAX_BODY_SIZE=${MAX_BODY_SIZE:-2m}
    MAX_IMAGE_SIZE=${MAX_IMAGE_SIZE:-11m} PICTURE_CACHE_SIZE=${PICTURE_CACHE_SIZE:-128m}
    PICTURE_FRESH_SECONDS=${PICTURE_FRESH_SECONDS:-60}
    PAGES_PER_SECOND=${PAGES_PER_SECOND:-30} PAGES_BURST=${PAGES_BURST:-120}
    WRITES_PER_SECOND=${WRITES_PER_SECOND:-10} WRITES_BURST=${WRITES_BURST:-40}
    SIGN_INS_PER_MINUTE=${SIGN_INS_PER_MINUTE:-60} SIGN_INS_BURST=${SIGN_INS_BURST:-20}
    WEB_IDLE_SECONDS=${WEB_IDLE_SECONDS:-55} WEB_LOOKUP_SECONDS=${WEB_LOOKUP_SECONDS:-5}
    numbers='PAGES_PER_SECOND PAGES_BURST WRITES_PER_SECOND WRITES_BURST SIGN_INS_PER_MINUTE SIGN_INS_BURST WEB_IDLE_SECONDS
        PICTURE_FRESH_SECONDS'
    for name in $numbers WEB_LOOKUP_SECONDS; do must_be "$name" '[1-9][0-9]{0,5}' 'a whole number above 0'; done
    sizes='MAX_BODY_SIZE MAX_IMAGE_SIZE PICTURE_CACHE_SIZE'
    for name in $sizes; do must_be "$name" '[1-9][0-9]{0,8}[kmg]?' 'a size like 2m'; done
    must_be STATIC_ROOT '/[A-Za-z0-9._/-]*' 'the absolute path of a folder'
    must_be WEB_ADDRESS '([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}' 'host:port'
    variables="$variables $numbers $sizes STATIC_ROOT"
    write_trusted
    addresses=$(look_up_web)
    write_web "$addresses"
    follow_web $$ "$addresses" &
}

write_trusted() {
    TRUSTED_PROXIES=$(printf '%s' "${TRUSTED_PROXIES:-}" | tr ',' ' ')
    must_be TRUSTED_PROXIES '[0-9A-Fa-f:./ ]*' 'addresses or networks like 10.0.0.0/8, with spaces between'
    {
        # shellcheck disable=SC2016 # nginx's own variables
        echo 'geo $realip_remote_addr $from_trusted_proxy {'
        echo '    default 0;'
        for network in $TRUSTED_PROXIES; do echo "    $network 1;"; done
        echo '}'
        for network in $TRUSTED_PROXIES; do echo "set_real_ip_from $network;"; done
        echo 'real_ip_header X-Forwarded-For;'
        echo 'real_ip_recursive on;'
    } >"$RUN_DIR/trusted.conf"
}

# The addresses of the web processes, one a line; nothing while the name is not known.
look_up_web() {
    host=${WEB_ADDRESS%:*}
    case $host in
    \[*) echo "$host" ;;
    *) timeout 5 getent ahosts "$host" | sed 's/[[:space:]].*//; s/.*:.*/[&]/' | sort -u || true ;;
    esac
}

# Whether a process is well is the cluster's to say, so none is counted out. What has one address may be many processes
# behind it: there, a request that may be repeated is repeated at the same one.
write_web() {
    times=1
    [ "$(printf '%s\n' "$1" | wc -l)" -gt 1 ] || times='1 2 3'
    {
        for address in $1; do
            for _ in $times; do echo "server $address:${WEB_ADDRESS##*:} max_fails=0;"; done
        done
        [ -n "$1" ] || echo 'server 127.0.0.1:9 down;'
    } >"$RUN_DIR/web.conf.new"
    mv "$RUN_DIR/web.conf.new" "$RUN_DIR/web.conf"
}

# Look the name up for as long as nginx runs, and let it read the addresses again when they are others.
follow_web() {
    known=$2
    while sleep "$WEB_LOOKUP_SECONDS" && kill -0 "$1" 2>/dev/null; do
        found=$(look_up_web)
        # A name that is not known for a moment is no reason to forget where the processes are.
        if [ -n "$found" ] && [ "$found" != "$known" ] && [ -s "$RUN_DIR/nginx.pid" ]; then
            echo "start.sh: $WEB_ADDRESS is now at $(echo "$found" | tr '\n' ' ')" >&2
            write_web "$found"
            kill -HUP "$1"
            known=$found
        fi
    done
}

# -- The store -----------------------------------------------------------------------------------------------------

prepare_store() {
    STORE_ROOT=${STORE_ROOT:-/srv/store}
    must_be STORE_ROOT '/[A-Za-z0-9._/-]*' 'the absolute path of a folder'
    [ -w "$STORE_ROOT" ] || fail "STORE_ROOT is $STORE_ROOT: $(id -un 2>/dev/null || id -u) cannot write there"
    variables="$variables STORE_ROOT"
    rm -rf "$STORE_ROOT/.incoming"  # uploads that an earlier nginx was killed amid
    for name in TOKEN RUN_TOKEN READ_TOKEN SIGNING_KEY; do read_secret "ARTIFACT_STORE_$name"; done
    [ -n "$ARTIFACT_STORE_TOKEN" ] || fail 'ARTIFACT_STORE_TOKEN is not set: nobody could write to the store'
    (umask 077 && write_secrets)
    for name in TOKEN RUN_TOKEN READ_TOKEN SIGNING_KEY; do unset "ARTIFACT_STORE_$name"; done
}

write_secrets() {
    {
        # shellcheck disable=SC2016 # nginx's own variable
        echo 'map $http_authorization $bearer_role {'
        echo '    default "";'
        for token in $ARTIFACT_STORE_TOKEN; do echo "    \"~^Bearer \\Q$token\\E\$\" blog;"; done
        for token in $ARTIFACT_STORE_RUN_TOKEN; do echo "    \"~^Bearer \\Q$token\\E\$\" run;"; done
        for token in $ARTIFACT_STORE_READ_TOKEN; do echo "    \"~^Bearer \\Q$token\\E\$\" read;"; done
        echo '}'
    } >"$RUN_DIR/tokens.conf"
    key=${ARTIFACT_STORE_SIGNING_KEY:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}
    echo "secure_link_md5 \"\$secure_link_expires \$uri $key\";" >"$RUN_DIR/signing.conf"
}

# ------------------------------------------------------------------------------------------------------------------

role=${1:-}
case $role in
gateway | store) shift ;;
*) fail "'$role' is neither gateway nor store" ;;
esac
PARTS=$(cd "$(dirname "$0")" && pwd)
PORT=${PORT:-8080} RUN_DIR=${RUN_DIR:-/tmp/nginx}
WORKERS=${WORKERS:-$(count_processors)}
must_be PORT '[1-9][0-9]{0,4}' 'a port'
must_be WORKERS '[1-9][0-9]{0,2}' 'a whole number above 0'
for name in PARTS RUN_DIR; do must_be "$name" '/[A-Za-z0-9._/-]*' 'the absolute path of a folder'; done
mkdir -p "$RUN_DIR"
rm -f "$RUN_DIR/nginx.pid"
variables='PARTS PORT RUN_DIR WORKERS'
"prepare_$role"
render
PATH=$PATH:/usr/sbin:/usr/local/sbin
# -e: until it has read its configuration nginx would log to a file, which may be read-only here.
exec nginx -e stderr -c "$RUN_DIR/$role.conf" "$@"

#!/usr/bin/env bash
# Builds the images with docker, podman or buildah, whichever works here: `infra/docker/build.sh`, or `make images`.
# `infra/docker/build.sh sizes` prints the sizes of built ones, and fails where one is larger than it may be;
# `infra/docker/build.sh tag` prints the tag that TAG would be.
#
# Settings, from the environment:
#   REGISTRY       before the names, as in registry.example:5000 or ghcr.example/me; none by default
#   TAG            the git revision by default; without a REGISTRY what was built is `dev` too, as the overlay local wants
#   PUSH=1         push to REGISTRY what was built; DIGESTS=FILE then gets a line each, huisheng-web=REGISTRY/huisheng-web:TAG@sha256:…
#   REGISTRY_PLAIN_HTTP=1   the registry speaks no TLS (podman and buildah; docker is told so in its own configuration)
#   IMAGES         which ones: "web gateway inference trainer" by default; local-worker is for compose.yaml
#   PYTHON_BASE, DEBIAN_BASE   other bases, any Debian bookworm
#   TORCH_INDEX_URL            where builds of torch without CUDA are, if not in pip's index
#   BUILDER        docker, podman or buildah; BUILD_FLAGS: more options for its build command
# Packages are found as pip and npm are configured here: their configuration, their certificates and the folders pip looks
# into are mounted into the build and in no image.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly LARGEST_MB=400 # of web and inference: nodes pull these when load rises

say() { printf '[images] %s\n' "$*"; }
fail() {
    printf '[images] %s\n' "$@" >&2
    exit 1
}

find_builder() {
    local candidate
    for candidate in ${BUILDER:-docker podman buildah}; do
        # A client without its daemon is no builder. `info` asks that, of all three.
        if command -v "$candidate" >/dev/null && "$candidate" info >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    fail "No working builder among: ${BUILDER:-docker, podman, buildah}." \
        "Debian: apt install buildah. With docker, is its daemon running (docker info)?"
}

default_tag() { # a tree that differs from its revision must not be taken for it
    git rev-parse --short=12 HEAD 2>/dev/null || fail "This is no git checkout: say TAG=…, the version you build"
    git diff --quiet HEAD -- || echo -dirty
}

image_name() { echo "${REGISTRY:+${REGISTRY%/}/}huisheng-$1:$TAG"; }

# What is mounted into the build for pip: secrets, so that they stand in no image and no history.
mount_pip_configuration() {
    local python folder
    python=$(command -v .venv/bin/python || command -v python3.11 || command -v python3 || true)
    [ -n "$python" ] || return 0
    "$python" infra/docker/pip_configuration.py "$scratch" >"$scratch/folders"
    flags+=(--secret "id=pip-conf,src=$scratch/pip.conf")
    [ ! -e "$scratch/pip-cert" ] || flags+=(--secret "id=pip-cert,src=$scratch/pip-cert")
    while read -r folder; do
        [ -n "$folder" ] || continue
        if [ "$builder" = docker ]; then
            say "docker cannot mount $folder, where pip looks for packages here; what is only there will be missing" >&2
        else
            flags+=(--volume "$folder:$folder:ro")
        fi
    done <"$scratch/folders"
}

# The same for npm: where packages are, who we are there, and which certificates count.
mount_npm_configuration() {
    local name value file
    for file in /etc/npmrc "${NPM_CONFIG_USERCONFIG:-$HOME/.npmrc}"; do
        [ ! -f "$file" ] || grep -E '^(//|@[^:]+:registry|(registry|proxy|https-proxy|noproxy|strict-ssl) *=)' "$file" || true
    done >"$scratch/npmrc"
    if command -v npm >/dev/null; then
        for name in registry proxy https-proxy; do
            value=$(npm config get "$name" 2>/dev/null || true)
            case $value in '' | null | undefined) ;; *) echo "$name=$value" >>"$scratch/npmrc" ;; esac
        done
        value=$(npm config get cafile 2>/dev/null || true)
        if [ -f "$value" ]; then
            cp "$value" "$scratch/npm-cert"
            echo "cafile=/run/secrets/npm-cert" >>"$scratch/npmrc"
            flags+=(--secret "id=npm-cert,src=$scratch/npm-cert")
        fi
    fi
    flags+=(--secret "id=npm-conf,src=$scratch/npmrc")
}

collect_flags() {
    local name
    flags=(--file infra/docker/Dockerfile)
    for name in PYTHON_BASE DEBIAN_BASE TORCH_INDEX_URL SOURCE HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy; do
        [ -z "${!name:-}" ] || flags+=(--build-arg "$name=${!name}")
    done
    flags+=(--build-arg "VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)")
    flags+=(--build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)")
    flags+=(--build-arg "CREATED=$(TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null || echo 1970-01-01T00:00:00Z)")
    [ "$builder" = docker ] || flags+=(--layers)
    mount_pip_configuration
    mount_npm_configuration
    # shellcheck disable=SC2206 # options, one a word
    flags+=(${BUILD_FLAGS:-})
}

build_image() {
    local started=$SECONDS
    say "building $(image_name "$1")"
    "$builder" build "${flags[@]}" --target "$1" --tag "$(image_name "$1")" . ||
        fail "Building $1 failed; the lines above say why." \
            "Is the base image within reach (PYTHON_BASE, DEBIAN_BASE), and the indexes of pip (pip config list) and npm?"
    [ -n "${REGISTRY:-}" ] || "$builder" tag "$(image_name "$1")" "huisheng-$1:dev"
    say "built $(image_name "$1") in $((SECONDS - started)) s"
}

push_image() {
    local name digest tls=()
    name=$(image_name "$1")
    say "pushing $name"
    if [ "$builder" = docker ]; then
        docker push --quiet "$name" >/dev/null || fail "Could not push $name; is docker logged in to ${REGISTRY}?"
        digest=$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$name" |
            sed -n "s|^${name%:*}@||p" | head -n 1)
    else
        [ "${REGISTRY_PLAIN_HTTP:-0}" = 0 ] || tls=(--tls-verify=false)
        "$builder" push --quiet "${tls[@]}" --digestfile "$scratch/digest" "$name" >/dev/null ||
            fail "Could not push $name; is $builder logged in to ${REGISTRY}? A registry without TLS: REGISTRY_PLAIN_HTTP=1"
        digest=$(cat "$scratch/digest")
    fi
    say "pushed $name@$digest"
    [ -z "${DIGESTS:-}" ] || echo "huisheng-$1=$name@$digest" >>"$DIGESTS"
}

size_bytes() {
    if [ "$builder" = buildah ]; then
        # It rounds to three digits and counts in thousands, as the others do.
        buildah images --format '{{.Size}}' "$(image_name "$1")" 2>/dev/null | head -n 1 | awk '
            BEGIN { unit["B"] = 1; unit["KB"] = 1e3; unit["MB"] = 1e6; unit["GB"] = 1e9 }
            NF == 2 { printf "%d\n", $1 * unit[toupper($2)] }'
    else
        "$builder" image inspect --format '{{.Size}}' "$(image_name "$1")" 2>/dev/null
    fi
}

print_sizes() {
    local image bytes status=0 verdict
    printf '%-14s %8s   %s\n' image MB name
    for image in $images; do
        bytes=$(size_bytes "$image" || true)
        [ -n "$bytes" ] || fail "$(image_name "$image") is not here. Build it: make images${TAG:+ TAG=$TAG}"
        verdict=''
        case $image in
        web | inference) if [ "$bytes" -gt $((LARGEST_MB * 1000000)) ]; then
            verdict="  more than the $LARGEST_MB MB it may have"
            status=1
        fi ;;
        esac
        printf '%-14s %8d   %s%s\n' "$image" $((bytes / 1000000)) "$(image_name "$image")" "$verdict"
    done
    return $status
}

# A function, as bash reads a script while it runs: one that is edited meanwhile must not change what runs.
main() {
    images=${IMAGES:-web gateway inference trainer}
    for image in $images; do
        case $image in
        web | gateway | inference | trainer | local-worker) ;;
        *) fail "IMAGES names '$image'; there are web, gateway, inference, trainer and local-worker" ;;
        esac
    done
    TAG=${TAG:-$(default_tag | tr -d '\n')}
    [ "$TAG" != latest ] || fail "TAG=latest says nothing about what runs; leave TAG out for the git revision"
    if [ "${1:-build}" = tag ]; then
        echo "$TAG"
        exit 0
    fi
    builder=$(find_builder)
    if [ "$builder" = buildah ]; then
        # Needs no more rights than a build in a container or on a CI machine has.
        export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}
    fi

    case ${1:-build} in
    build)
        [ "${PUSH:-0}" = 0 ] || [ -n "${REGISTRY:-}" ] || fail "PUSH=1 needs REGISTRY=…, where to push to"
        scratch=$(mktemp -d)
        trap 'rm -rf "$scratch"' EXIT
        collect_flags
        say "with $builder: $images, tag $TAG"
        for image in $images; do build_image "$image"; done
        if [ "${PUSH:-0}" != 0 ]; then
            [ -z "${DIGESTS:-}" ] || : >"$DIGESTS"
            for image in $images; do push_image "$image"; done
        fi
        print_sizes || true
        ;;
    sizes) print_sizes ;;
    *) fail "unknown command '$1': say nothing (to build), sizes or tag" ;;
    esac
}

main "$@"
exit

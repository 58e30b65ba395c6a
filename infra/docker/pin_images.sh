#!/usr/bin/env bash
# Puts an overlay's images at the digests that were pushed, without changing the overlay:
# `infra/docker/pin_images.sh DIGESTS OVERLAY FOLDER` makes FOLDER, for `kubectl apply -k FOLDER`.
# DIGESTS is what `make images PUSH=1 DIGESTS=…` wrote: lines such as huisheng-web=registry.example/huisheng-web:TAG@sha256:…
set -euo pipefail

digests=${1:?usage: infra/docker/pin_images.sh DIGESTS OVERLAY FOLDER}
overlay=${2:?usage: infra/docker/pin_images.sh DIGESTS OVERLAY FOLDER}
folder=${3:?usage: infra/docker/pin_images.sh DIGESTS OVERLAY FOLDER}

fail() {
    printf '[images] %s\n' "$@" >&2
    exit 1
}

readonly LINE='^(huisheng-[a-z-]+)=([^@[:space:]]+):([A-Za-z0-9_][A-Za-z0-9_.-]*)@(sha256:[0-9a-f]{64})$'

[ -s "$digests" ] || fail "$digests names no images; make images PUSH=1 DIGESTS=$digests writes it"
[ -f "$overlay/kustomization.yaml" ] || fail "$overlay is no overlay: it has no kustomization.yaml"
mkdir -p "$folder"
base=$(realpath --relative-to "$folder" "$overlay")
release=$(realpath --canonicalize-missing --relative-to "$folder" "$overlay/../../transformers/release")

{
    printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - %s\nimages:\n' "$base"
    while read -r line; do
        [[ $line =~ $LINE ]] || fail "$digests has the line '$line'; expected NAME=REPOSITORY:TAG@sha256:…"
        printf '  - {name: %s, newName: %s, newTag: "%s", digest: "%s"}\n' "${BASH_REMATCH[@]:1}"
    done <"$digests"
    # Settings that name images follow `images:`, if the overlay is one of this project.
    [ ! -d "$overlay/../../transformers/release" ] || printf 'transformers:\n  - %s\n' "$release"
} >"$folder/kustomization.yaml.unfinished"
mv "$folder/kustomization.yaml.unfinished" "$folder/kustomization.yaml"
echo "[images] $folder: $overlay at the digests of $digests"

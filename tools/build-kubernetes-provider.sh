#!/bin/sh
# Builds the provider plugin `kubernetes` into the folder $1, from the Go module proxy: some twenty minutes on two cores.
# With that folder on PATH, the tests use it in place of their stand-in.
set -eu
mkdir -p -- "$1"
folder=$(cd -- "$1" && pwd)
module=github.com/pulumi/pulumi-kubernetes
version=v4.0.0-20260115033456-f47bc2d6f199 # the only one served there; between the releases named next and after it
release=4.25.0
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

cd "$work"
GOMODCACHE=$(go env GOMODCACHE) && go mod download "$module/provider/v4@$version"
cp -R "$GOMODCACHE/$module/provider/v4@$version" source
chmod -R u+w source
cd source
export GOFLAGS=-mod=mod
# The SDK is beside it in the repository alone, and what is embedded is left out of it.
go mod edit -dropreplace "$module/sdk/v4"
(cd cmd/pulumi-resource-kubernetes && VERSION=$release go run generate.go)
go build -o "$folder/pulumi-resource-kubernetes" \
    -ldflags "-X $module/provider/v4/pkg/version.Version=v$release" ./cmd/pulumi-resource-kubernetes
echo "$folder/pulumi-resource-kubernetes"

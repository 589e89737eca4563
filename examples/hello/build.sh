#!/bin/sh
# Cross-compiles hello for every platform of rootfs.yaml into dist/. Needs Go only.
set -eu
cd "$(dirname "$0")"
mkdir -p dist
for p in amd64: arm64: arm:7 riscv64: s390x:; do
	arch=${p%%:*} arm=${p#*:}
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch GOARM=$arm GOFLAGS= \
		go build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o "dist/hello-$arch${arm:+v$arm}" main.go
done

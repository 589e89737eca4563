#!/bin/sh
# Makes DIR/ARCH.tar with /bin/busybox (static) for each ARCH in Debian's names, from
# Debian's packages and without touching the host's package state. Needs mmdebstrap.
# Usage: busybox.sh DIR ARCH...
set -eu
dir=$1
shift
for arch; do
	[ -e "$dir/$arch.tar" ] && continue
	mmdebstrap --quiet --variant=extract --architectures="$arch" --include=busybox-static \
		--skip=check/qemu --format=tar bookworm "$dir/$arch.tar.part" </dev/null
	mv "$dir/$arch.tar.part" "$dir/$arch.tar"
done

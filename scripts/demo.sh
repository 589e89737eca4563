#!/usr/bin/env bash
# Builds examples/hello for five architectures, pushes it to a registry that this
# script starts on the loopback, pulls it back for each platform, and prints the
# platform table. Needs Go; qemu-user-static for the foreign architectures.
set -euo pipefail
cd "$(dirname "$0")/.."

have_qemu() {
	local a
	for a in aarch64 arm riscv64 s390x; do
		command -v "qemu-$a-static" >/dev/null || command -v "qemu-$a" >/dev/null || return 1
	done
}

if ! have_qemu; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		echo "demo: installing qemu-user-static" >&2
		apt-get update -qq >&2
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-user-static >&2
	else
		echo "demo: the foreign architectures need qemu-user: install the package qemu-user-static" >&2
		echo "demo: as root: apt-get install --no-install-recommends qemu-user-static" >&2
		exit 8
	fi
fi

work=$(mktemp -d)
server=
cleanup() {
	if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
	rm -rf "$work"
}
trap cleanup EXIT

echo "demo: compiling manifestctl and the example (minutes when Go has nothing in its cache)" >&2
CGO_ENABLED=0 go build -trimpath -o "$work/manifestctl" ./cmd/manifestctl
mctl() { "$work/manifestctl" --root "$work/store" "$@"; }
cp -R examples/hello "$work/hello"
"$work/hello/build.sh"

"$work/manifestctl" serve --listen 127.0.0.1:0 "$work/registry" 2>"$work/serve.log" &
server=$!
for _ in $(seq 100); do
	addr=$(grep -oE '127\.0\.0\.1:[0-9]+' "$work/serve.log" | head -1 || true)
	[ -n "$addr" ] && break
	sleep 0.1
done
[ -n "$addr" ] || { cat "$work/serve.log" >&2; echo "demo: the registry did not start" >&2; exit 1; }

image=$addr/demo/hello:1.0
echo "+ manifestctl build -t $image --push examples/hello" >&2
mctl build --progress plain -t "$image" --push "$work/hello"

echo "+ each platform as a client gets it" >&2
for p in amd64 arm64 arm/v7 riscv64 s390x; do
	spec="$work/pull-${p//\//-}"
	mkdir "$spec"
	printf 'version: 1\nplatforms: [linux/%s]\nfrom: %s\nsteps: []\n' "$p" "$image" >"$spec/rootfs.yaml"
	mctl build --progress quiet -o "type=local,dest=$spec/rootfs" "$spec" >/dev/null
	printf 'linux/%-8s uname: %-8s child: %s\n' "$p" "$(cat "$spec/rootfs/var/lib/hello/parent")" "$(cat "$spec/rootfs/var/lib/hello/child")"
done

echo "+ manifestctl inspect $image" >&2
mctl inspect "$image"

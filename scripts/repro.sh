#!/usr/bin/env bash
# repro.sh: copies the tree to two places, builds the program and the sample image in each under another time zone, umask and parallelism,
# and compares: the same bytes, the same digest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d "${TMPDIR:-/tmp}/manifestctl-repro.XXXXXX")
trap 'chmod -R u+rwx "$work"; rm -rf "$work"' EXIT

platforms=()
if ! command -v qemu-s390x-static >/dev/null && ! command -v qemu-s390x >/dev/null; then
	echo "repro: no qemu-user, so the sample image is made for this machine only" >&2
	platforms=(--platform local)
fi

one() { # DIR UMASK PARALLEL
	local tree=$work/$1
	mkdir -p "$tree"
	(
		umask "$2"
		git ls-files -z --cached --others --exclude-standard | tar --null --no-recursion --ignore-failed-read -T - -cf - 2>/dev/null | tar -C "$tree" -xf - --no-same-permissions
		cd "$tree"
		make --no-print-directory build >&2
		examples/hello/build.sh
		bin/manifestctl --root "$tree/.store" build --quiet --parallel "$3" "${platforms[@]}" examples/hello
	)
}

export SOURCE_DATE_EPOCH=1700000000 # else files that steps write have the time when they did
first=$(TZ=UTC one a 022 1)
second=$(TZ=Asia/Tokyo one b/deep/in 077 4)
cmp "$work/a/bin/manifestctl" "$work/b/deep/in/bin/manifestctl"
echo "repro: the program is $(sha256sum <"$work/a/bin/manifestctl" | cut -d' ' -f1)"
if [ "$first" != "$second" ]; then
	echo "repro: the sample image differs: $first, $second" >&2
	exit 1
fi
echo "repro: the sample image is $first"

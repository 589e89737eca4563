#!/usr/bin/env bash
# fuzz.sh TIME [NAME...]: runs every fuzz target, or those named, for TIME each. The first finding ends it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

time=${1-30s}
shift || true
go=${GO-go}
count=0

# fuzz PACKAGE TARGET. Go's fuzzer may take the end of its own time for a failure ("context deadline exceeded", no input
# written): that is tried again. A target that hangs or fails writes its input, and is not.
fuzz() {
	local try
	for try in 1 2 3; do
		"$go" test "$1" -run '^$' -fuzz "^$2\$" -fuzztime "$time" >bin/fuzz.log 2>&1 && return
		grep -q 'Failing input written' bin/fuzz.log && return 1
		grep -q '^ *context deadline exceeded$' bin/fuzz.log || return 1
		echo "fuzz $2: the fuzzer's own deadline, try $try"
	done
	return 1
}

while read -r package; do
	while read -r target; do
		if [ $# -gt 0 ] && [[ " $* " != *" $target "* ]]; then continue; fi
		echo "fuzz $package $target $time"
		fuzz "$package" "$target" || { cat bin/fuzz.log; exit 1; }
		count=$((count + 1))
	done < <(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "${package#github.com/manifestctl/manifestctl/}"/*_test.go 2>/dev/null | cut -d' ' -f2)
done < <(mkdir -p bin; "$go" list ./...)
echo "fuzz: $count targets"
[ "$count" -gt 0 ]

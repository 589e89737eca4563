#!/usr/bin/env bash
# fuzz.sh TIME [NAME...]: runs every fuzz target, or those named, for TIME each. The first finding ends it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

time=${1-30s}
shift || true
go=${GO-go}
count=0
while read -r package; do
	while read -r target; do
		if [ $# -gt 0 ] && [[ " $* " != *" $target "* ]]; then continue; fi
		echo "fuzz $package $target $time"
		"$go" test "$package" -run '^$' -fuzz "^$target\$" -fuzztime "$time" >bin/fuzz.log 2>&1 || { cat bin/fuzz.log; exit 1; }
		count=$((count + 1))
	done < <(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "${package#github.com/manifestctl/manifestctl/}"/*_test.go 2>/dev/null | cut -d' ' -f2)
done < <(mkdir -p bin; "$go" list ./...)
echo "fuzz: $count targets"
[ "$count" -gt 0 ]

#!/usr/bin/env bash
# The build step of action.yml, which gives it its inputs as $INPUT_NAME. manifestctl itself writes the outputs.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/inputs.sh"

csv INPUT_ADD_HOSTS --add-host
csv INPUT_ALLOW --allow
lines INPUT_ANNOTATIONS --annotation
lines INPUT_ATTESTS --attest
lines INPUT_BUILD_ARGS --build-arg
lines INPUT_BUILD_CONTEXTS --build-context
value INPUT_BUILDER --builder
lines INPUT_CACHE_FROM --cache-from
lines INPUT_CACHE_TO --cache-to
value INPUT_CALL --call
value INPUT_CGROUP_PARENT --cgroup-parent
value INPUT_FILE --file
lines INPUT_LABELS --label
value INPUT_NETWORK --network
switch INPUT_NO_CACHE --no-cache
csv INPUT_NO_CACHE_FILTERS --no-cache-filter
lines INPUT_OUTPUTS --output
csv INPUT_PLATFORMS --platform
value INPUT_PROVENANCE --provenance
switch INPUT_PULL --pull
switch INPUT_PUSH --push
value INPUT_SBOM --sbom
value INPUT_SHM_SIZE --shm-size
lines INPUT_SSH --ssh
csv INPUT_TAGS --tag
value INPUT_TARGET --target
lines INPUT_ULIMIT --ulimit
value INPUT_STAGE --stage
switch INPUT_APPEND --append
switch INPUT_DROP_PLATFORMS --drop-platforms
case ${INPUT_LOAD-} in '' | false) ;; true) args+=(--load) ;; *) args+=("--load=$INPUT_LOAD") ;; esac
while IFS= read -r line; do args+=("$line"); done < <(each INPUT_ARGS)

# Secrets are passed in variables: the command line is for everybody to see.
n=0
while IFS= read -r line; do
	case $line in *=*) ;; *)
		echo "::error::secrets: a line is not ID=VALUE"
		exit 2
		;;
	esac
	n=$((n + 1))
	export "MANIFESTCTL_SECRET_$n=${line#*=}"
	args+=("--secret=id=${line%%=*},env=MANIFESTCTL_SECRET_$n")
done < <(each INPUT_SECRETS)
split() { # INPUT KEY
	local before=${#args[@]} i
	csv "$1" ''
	for ((i = before; i < ${#args[@]}; i++)); do
		local pair=${args[i]#=}
		args[i]="--secret=id=${pair%%=*},$2=${pair#*=}"
	done
}
split INPUT_SECRET_ENVS env
split INPUT_SECRET_FILES src
case ${INPUT_CONTEXT-} in
*://* | git@*) [ -z "${INPUT_GITHUB_TOKEN-}" ] || args+=(--secret=id=GIT_AUTH_TOKEN,env=INPUT_GITHUB_TOKEN) ;;
esac

exec manifestctl build "${args[@]}" -- "${INPUT_CONTEXT:-.}"

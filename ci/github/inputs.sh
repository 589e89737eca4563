# shellcheck shell=bash
# Sourced by the actions: makes arguments of inputs, in the array args. Inputs are lists of lines; in those that are CSV as
# well, commas divide too. Empty lines and those that begin with # are left out.

args=()

# each INPUT: prints the lines of an input.
each() {
	local line
	while IFS= read -r line || [ -n "$line" ]; do
		line=${line%$'\r'}
		line=${line#"${line%%[![:space:]]*}"}
		line=${line%"${line##*[![:space:]]}"}
		case $line in '' | '#'*) ;; *) printf '%s\n' "$line" ;; esac
	done <<<"${!1-}"
}

# lines INPUT FLAG: a flag for each line.
lines() {
	local line
	while IFS= read -r line; do args+=("$2=$line"); done < <(each "$1")
}

# csv INPUT FLAG: a flag for each word between commas or ends of lines.
csv() {
	local line word words
	while IFS= read -r line; do
		IFS=, read -ra words <<<"$line"
		for word in "${words[@]}"; do
			word=${word#"${word%%[![:space:]]*}"}
			word=${word%"${word##*[![:space:]]}"}
			[ -z "$word" ] || args+=("$2=$word")
		done
	done < <(each "$1")
}

# value INPUT FLAG: a flag, if the input is not empty.
value() { [ -z "${!1-}" ] || args+=("$2=${!1}"); }

# switch INPUT FLAG: a flag that is on or off.
switch() {
	case ${!1-} in
	'' | false) ;;
	true) args+=("$2") ;;
	*)
		echo "::error::$1 is ${!1}: want true or false"
		exit 2
		;;
	esac
}

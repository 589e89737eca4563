#!/bin/sh
# Makes DIR/{server,client}/{ca,cert,key}.pem: an authority of its own, a certificate for the daemons of kustomization.yaml,
# and one for those who may use them. Needs openssl. The authority's key is not kept: run it again for new ones.
# Usage: certs.sh DIR [NAMESPACE]
set -eu
dir=$1
namespace=${2:-default}
umask 077
mkdir -p "$dir/server" "$dir/client"
key=$(mktemp -d)
trap 'rm -rf "$key"' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=buildkit \
	-keyout "$key/ca-key.pem" -out "$dir/server/ca.pem" 2>/dev/null
cp "$dir/server/ca.pem" "$dir/client/ca.pem"
issue() { # DIR NAME EXTENSIONS
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$2" -keyout "$1/key.pem" -out "$key/$2.csr" 2>/dev/null
	printf '%s\n' "$3" >"$key/$2.ext"
	openssl x509 -req -in "$key/$2.csr" -CA "$dir/server/ca.pem" -CAkey "$key/ca-key.pem" -CAserial "$key/ca.srl" -CAcreateserial -days 825 \
		-extfile "$key/$2.ext" -out "$1/cert.pem" 2>/dev/null
}
names=
for arch in amd64 arm64; do
	service=buildkit-$arch
	for name in "$service" "$service.$namespace" "$service.$namespace.svc" "*.$service" "*.$service.$namespace" "*.$service.$namespace.svc"; do
		names="$names${names:+,}DNS:$name"
	done
done
issue "$dir/server" server "subjectAltName=$names
extendedKeyUsage=serverAuth"
issue "$dir/client" client "extendedKeyUsage=clientAuth"

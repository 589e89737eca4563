#!/bin/sh
# Names the daemons and builds on them. NAME is what is pushed.
set -eu
certs=cacert=/certs/ca.pem,cert=/certs/cert.pem,key=/certs/key.pem
manifestctl builder create --name farm --platform linux/amd64 --driver-opt "$certs" tcp://buildkit-amd64-0.buildkit-amd64:1234
manifestctl builder create --name farm --append --platform linux/arm64 --driver-opt "$certs" tcp://buildkit-arm64-0.buildkit-arm64:1234
exec manifestctl build --builder farm --progress plain --platform linux/amd64,linux/arm64 -t "$NAME" --push /context

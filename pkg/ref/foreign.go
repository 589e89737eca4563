package ref

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// foreign are prefixes that skopeo and podman have and we do not, and what to write instead. Read as names they would be
// images of docker.io, of which nobody thought; "docker://dir:1" is one.
var foreign = []struct{ prefix, instead string }{
	{"docker-daemon:", "`docker save -o FILE NAME` writes what docker-archive:FILE reads, and `build --load=docker` brings images there"},
	{"containers-storage:", "`podman save --format oci-archive -o FILE NAME` writes what oci-archive:FILE reads, and `build --load=podman` brings images there"},
	{"dir:", "oci:DIR is a directory that every tool reads"},
	{"ostree:", "oci:DIR is a directory that every tool reads"},
	{"sif:", "oci-archive:FILE is a file that every tool reads"},
	{"tarball:", "`manifestctl build` with FROM scratch and ADD FILE.tar / makes an image of it"},
}

// mistaken is an error for what the name s, which has no scheme, most likely does not mean.
func mistaken(s string) error {
	for _, f := range foreign {
		if strings.HasPrefix(s, f.prefix) {
			return fmt.Errorf("%s is a place that is not read or written: %s", f.prefix, f.instead)
		}
	}
	host, port, ok := strings.Cut(s, ":")
	if _, err := strconv.ParseUint(port, 10, 16); !ok || err != nil {
		return nil
	}
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
		return fmt.Errorf("it is a registry without a repository: write %s/NAME:TAG", s)
	}
	return nil
}

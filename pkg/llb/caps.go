package llb

import (
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	apipb "github.com/moby/buildkit/util/apicaps/pb"
)

// declined are the capabilities of BuildKit that [Decode] does not have. A frontend that asks first leaves out
// what needs them; so what must not be left out silently (devices, limits of a cgroup) is not here, and refused where it is read.
var declined = map[apicaps.CapID]bool{
	pb.CapExecMetaNetworkProxy:      true,
	pb.CapSourceImageBlob:           true,
	pb.CapSourceHTTPSignatureVerify: true,
	pb.CapSourceGitSignatureVerify:  true,
	pb.CapSourceGitBundle:           true,
	pb.CapSourceGitCheckoutBundle:   true,
	pb.CapSourceMetadataTransfer:    true,
	pb.CapBuildOpLLBFileName:        true,
	pb.CapPassthroughOp:             true,
	pb.CapSourcePolicy:              true,
	pb.CapSourcePolicySession:       true,
	pb.CapRemoteCacheGHA:            true,
	pb.CapRemoteCacheS3:             true,
	pb.CapRemoteCacheAzBlob:         true,
}

// Caps is what [Decode] can read, for the frontends that ask before they write.
func Caps() apicaps.CapSet {
	return pb.Caps.CapSet(capabilities())
}

func capabilities() []*apipb.APICap {
	all := pb.Caps.All()
	out := all[:0:0]
	for _, c := range all {
		if !declined[apicaps.CapID(c.ID)] {
			out = append(out, c)
		}
	}
	return out
}

package registry_test

import (
	"errors"
	"io"
	"log"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/registry"
)

// quiet is for servers whose clients are meant to fail.
var quiet = log.New(io.Discard, "", 0)

// keychain has the same credentials for everybody, or an error.
type keychain struct {
	auth authn.Authenticator
	err  error
}

func (k keychain) Resolve(authn.Resource) (authn.Authenticator, error) { return k.auth, k.err }

var (
	anonymous = keychain{auth: authn.Anonymous}
	someone   = keychain{auth: &authn.Basic{Username: "someone", Password: "s3cret"}}
	broken    = keychain{err: errors.New("docker-credential-x: exit status 1")}
)

// imageManifest is a small document of an image.
func imageManifest(name string) []byte {
	return []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` +
		digest.FromString(name).String() + `","size":` + "1" + `},"layers":[]}`)
}

// pull reads a whole blob.
func pull(t *testing.T, c *registry.Client, reference string, desc ocispec.Descriptor) ([]byte, error) {
	t.Helper()
	rc, err := c.Blob(t.Context(), mustParse(t, reference), desc)
	if err != nil {
		return nil, err
	}
	defer func() { require.NoError(t, rc.Close()) }()
	return io.ReadAll(rc)
}

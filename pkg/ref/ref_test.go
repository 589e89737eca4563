package ref_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

const (
	hexDigits = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	dgst      = digest.Digest("sha256:" + hexDigits)
	dgst512   = digest.Digest("sha512:" + hexDigits + hexDigits)
)

var valid = map[string]ref.Ref{
	// Registry references.
	"debian":                                {Kind: ref.Registry, Host: "docker.io", Repo: "library/debian", Tag: "latest"},
	"debian:bookworm-slim":                  {Kind: ref.Registry, Host: "docker.io", Repo: "library/debian", Tag: "bookworm-slim"},
	"docker.io/debian":                      {Kind: ref.Registry, Host: "docker.io", Repo: "library/debian", Tag: "latest"},
	"index.docker.io/library/debian":        {Kind: ref.Registry, Host: "docker.io", Repo: "library/debian", Tag: "latest"},
	"docker://debian":                       {Kind: ref.Registry, Host: "docker.io", Repo: "library/debian", Tag: "latest"},
	"moby/buildkit:v1":                      {Kind: ref.Registry, Host: "docker.io", Repo: "moby/buildkit", Tag: "v1"},
	"localhost/app":                         {Kind: ref.Registry, Host: "localhost", Repo: "app", Tag: "latest"},
	"localhost:5000/a/b/c:x":                {Kind: ref.Registry, Host: "localhost:5000", Repo: "a/b/c", Tag: "x"},
	"127.0.0.1:5000/app":                    {Kind: ref.Registry, Host: "127.0.0.1:5000", Repo: "app", Tag: "latest"},
	"[::1]:5000/app":                        {Kind: ref.Registry, Host: "[::1]:5000", Repo: "app", Tag: "latest"},
	"[::ffff:127.0.0.1]:5000/app":           {Kind: ref.Registry, Host: "[::ffff:127.0.0.1]:5000", Repo: "app", Tag: "latest"},
	"[::1]/app:x":                           {Kind: ref.Registry, Host: "[::1]", Repo: "app", Tag: "x"},
	"GHCR.io/o/app":                         {Kind: ref.Registry, Host: "ghcr.io", Repo: "o/app", Tag: "latest"},
	"r.example/app@" + string(dgst):         {Kind: ref.Registry, Host: "r.example", Repo: "app", Digest: dgst},
	"r.example/app:1@" + string(dgst):       {Kind: ref.Registry, Host: "r.example", Repo: "app", Tag: "1", Digest: dgst},
	"r.example/app@" + string(dgst512):      {Kind: ref.Registry, Host: "r.example", Repo: "app", Digest: dgst512},
	"r.example/a__b/c.d/e---f:_X.y-Z":       {Kind: ref.Registry, Host: "r.example", Repo: "a__b/c.d/e---f", Tag: "_X.y-Z"},
	"docker://oci:5000/app":                 {Kind: ref.Registry, Host: "oci:5000", Repo: "app", Tag: "latest"},
	"docker://store:1.0":                    {Kind: ref.Registry, Host: "docker.io", Repo: "library/store", Tag: "1.0"},
	"docker.io/localhost/app":               {Kind: ref.Registry, Host: "docker.io", Repo: "localhost/app", Tag: "latest"},
	"docker.io/library/foo/bar":             {Kind: ref.Registry, Host: "docker.io", Repo: "library/foo/bar", Tag: "latest"},
	"xn--nxasmq6b.example:65535/app:x":      {Kind: ref.Registry, Host: "xn--nxasmq6b.example:65535", Repo: "app", Tag: "x"},
	"localhost.evil/app":                    {Kind: ref.Registry, Host: "localhost.evil", Repo: "app", Tag: "latest"},
	"r.example/" + strings.Repeat("a", 245): {Kind: ref.Registry, Host: "r.example", Repo: strings.Repeat("a", 245), Tag: "latest"},
	// The store.
	"store:hello":                      {Kind: ref.Store, Name: "hello", Tag: "latest"},
	"store:hello:1.0":                  {Kind: ref.Store, Name: "hello", Tag: "1.0"},
	"store:docker.io/library/debian:x": {Kind: ref.Store, Name: "debian", Tag: "x"},
	"store:r.example:5000/app:x":       {Kind: ref.Store, Name: "r.example:5000/app", Tag: "x"},
	"store:r.example:5000/app":         {Kind: ref.Store, Name: "r.example:5000/app", Tag: "latest"},
	"store:hello@" + string(dgst):      {Kind: ref.Store, Name: "hello", Digest: dgst},
	"store:@" + string(dgst):           {Kind: ref.Store, Digest: dgst},
	"store:oci:5000/app":               {Kind: ref.Store, Name: "oci:5000/app", Tag: "latest"},
	"store:store:1.0":                  {Kind: ref.Store, Name: "store", Tag: "1.0"},
	// Layouts and archives.
	"oci:out":                           {Kind: ref.OCILayout, Path: "out"},
	"oci:out:1.0":                       {Kind: ref.OCILayout, Path: "out", Tag: "1.0"},
	"oci:/a/b c/d:x":                    {Kind: ref.OCILayout, Path: "/a/b c/d", Tag: "x"},
	"oci-layout:///a/b":                 {Kind: ref.OCILayout, Path: "/a/b"},
	"oci-layout://a:x@" + string(dgst):  {Kind: ref.OCILayout, Path: "a", Tag: "x", Digest: dgst},
	"ocidir://rel:x":                    {Kind: ref.OCILayout, Path: "rel", Tag: "x"},
	"oci:out@" + string(dgst):           {Kind: ref.OCILayout, Path: "out", Digest: dgst},
	"oci:a:b:c":                         {Kind: ref.OCILayout, Path: "a:b", Tag: "c"},
	"oci:a:b/c":                         {Kind: ref.OCILayout, Path: "a:b/c"},
	"oci:a:b:":                          {Kind: ref.OCILayout, Path: "a:b"},
	"oci:a:b:@" + string(dgst):          {Kind: ref.OCILayout, Path: "a:b", Digest: dgst},
	"oci:me@host:tag":                   {Kind: ref.OCILayout, Path: "me@host", Tag: "tag"},
	"oci:me@host/dir":                   {Kind: ref.OCILayout, Path: "me@host/dir"},
	"oci:.":                             {Kind: ref.OCILayout, Path: "."},
	"oci:12:30 uhr":                     {Kind: ref.OCILayout, Path: "12:30 uhr"},
	"oci-archive:x.tar":                 {Kind: ref.OCIArchive, Path: "x.tar"},
	"oci-archive:/d/x.tar.zst:v1":       {Kind: ref.OCIArchive, Path: "/d/x.tar.zst", Tag: "v1"},
	"oci-archive:x.tar@" + string(dgst): {Kind: ref.OCIArchive, Path: "x.tar", Digest: dgst},
	"docker-archive:x.tar:v1":           {Kind: ref.DockerArchive, Path: "x.tar", Tag: "v1"},
	"docker-archive:a@" + "b:" + hexDigits[:31]: {Kind: ref.DockerArchive, Path: "a@b", Tag: hexDigits[:31]},
	"docker://dir:x":                   {Kind: ref.Registry, Host: "docker.io", Repo: "library/dir", Tag: "x"},
	"docker.io/library/localhost:5000": {Kind: ref.Registry, Host: "docker.io", Repo: "library/localhost", Tag: "5000"},
	"localhost:latest":                 {Kind: ref.Registry, Host: "docker.io", Repo: "library/localhost", Tag: "latest"},
}

// invalid holds what must be refused, each with a word that its error must say.
var invalid = map[string]string{
	"":                                   "missing",
	"/":                                  "repository",
	"Debian":                             "lower case",
	"r.example/App:x":                    "lower case",
	"debian:":                            "tag after the colon",
	"debian:.x":                          "tag",
	"debian:" + strings.Repeat("x", 129): "128",
	"debian@sha256:" + hexDigits[:63]:    "sha256",
	"debian@sha256:" + strings.ToUpper(hexDigits): "lower case",
	"debian@sha256":              "sha256",
	"debian@":                    "sha256",
	"debian@sha256:../../x":      "password",
	"debian@blake3:" + hexDigits: "unsupported algorithm",
	"debian@" + string(dgst) + "@" + string(dgst): "sha256",
	"user:pw@host/x":                        "password",
	"user@host.example/x:1":                 "password",
	"b%2fc":                                 "repository",
	"r.example/../x":                        "repository",
	"r.example//x":                          "repository",
	"r.example/x/":                          "repository",
	"r.example/a..b":                        "repository",
	"r.example/_a":                          "repository",
	"r.example/a___b":                       "repository",
	"r.example:0/x":                         "port",
	"r.example:65536/x":                     "port",
	"r.example:+80/x":                       "port",
	"r.example:080/x":                       "port",
	"r.example:/x":                          "port",
	"r_e.example/x":                         "host",
	"-r.example/x":                          "host",
	"r..example/x":                          "host",
	"exаmple.com/x":                         "host", // a Cyrillic letter
	"[::1/x":                                "host",
	"[x]:5000/a":                            "host",
	"[:]/a":                                 "host",
	"[1:2]/a":                               "host",
	"[fe80::1%eth0]/a":                      "host",
	"https://r.example/x":                   "https://",
	"docker://https://r.example/x":          "https://",
	"docker://":                             "missing",
	hexDigits:                               "ID",
	"r.example/" + strings.Repeat("a", 246): "255",
	"a b":                                   "repository",
	"a\nb":                                  "repository",
	"store:":                                "missing",
	"store:Hello":                           "lower case",
	"store:../x":                            "host",
	"store:@sha256:x":                       "sha256",
	"oci:":                                  "path",
	"oci::x":                                "path",
	"oci:@" + string(dgst):                  "path",
	"oci:a@sha256:xyz":                      "sha256",
	"oci:a\x00b":                            "NUL",
	"oci-archive:":                          "path",
	"docker-archive:x.tar@" + string(dgst):  "digest",
	"docker-daemon:app:1":                   "docker-archive:FILE", // skopeo's places are not read as images of docker.io
	"containers-storage:app":                "oci-archive:FILE",
	"dir:x":                                 "oci:DIR",
	"127.0.0.1:5000":                        "without a repository",
	"localhost:5000":                        "write localhost:5000/NAME:TAG",
}

func TestParse(t *testing.T) {
	for in, want := range valid {
		t.Run(in, func(t *testing.T) {
			got, err := ref.Parse(in)
			require.NoError(t, err)
			assert.Equal(t, want, got)
			again, err := ref.Parse(got.String())
			require.NoError(t, err, "canonical form %q", got)
			assert.Equal(t, got, again, "canonical form %q", got)
		})
	}
}

// TestParse_C31 holds hostile spellings of ROBUSTNESS.md rows C31 and B15, and plain mistakes.
func TestParse_C31_B15_refused(t *testing.T) {
	for in, word := range invalid {
		t.Run(fmt.Sprintf("%q", in), func(t *testing.T) {
			got, err := ref.Parse(in)
			require.ErrorIs(t, err, ref.ErrInvalid)
			assert.Contains(t, err.Error(), word)
			assert.Contains(t, err.Error(), fmt.Sprintf("%q", in), "the error names its input")
			assert.Zero(t, got)
		})
	}
}

func TestParseTag(t *testing.T) {
	for name, tc := range map[string]struct {
		in      string
		want    string
		wantErr error
	}{
		"short":           {in: "hello", want: "docker.io/library/hello:latest"},
		"host and port":   {in: "localhost:5000/hello:1.0", want: "localhost:5000/hello:1.0"},
		"transport":       {in: "docker://r.example/hello:1.0", want: "r.example/hello:1.0"},
		"digest":          {in: "hello@" + string(dgst), wantErr: ref.ErrInvalid},
		"tag and digest":  {in: "hello:1@" + string(dgst), wantErr: ref.ErrInvalid},
		"layout":          {in: "oci:out", wantErr: ref.ErrInvalid},
		"archive":         {in: "docker-archive:x.tar", wantErr: ref.ErrInvalid},
		"store":           {in: "store:hello", wantErr: ref.ErrInvalid},
		"upper case":      {in: "Hello", wantErr: ref.ErrInvalid},
		"empty":           {in: "", wantErr: ref.ErrInvalid},
		"space":           {in: " hello", wantErr: ref.ErrInvalid},
		"an option value": {in: "name=hello", wantErr: ref.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ref.ParseTag(tc.in)
			require.ErrorIs(t, err, tc.wantErr)
			assert.Equal(t, tc.want, got.String())
		})
	}
}

func TestFamiliar(t *testing.T) {
	for in, want := range map[string]string{
		"docker.io/library/debian:bookworm": "debian:bookworm",
		"debian":                            "debian:latest",
		"docker.io/moby/buildkit:x":         "moby/buildkit:x",
		"docker.io/localhost/app:x":         "docker.io/localhost/app:x", // localhost/app is another place
		"docker.io/library/a/b:x":           "library/a/b:x",
		"ghcr.io/o/app:x":                   "ghcr.io/o/app:x",
		"docker://store:1.0":                "docker://store:1.0",
		"store:docker.io/debian:x":          "debian:x",
		"store:r.example/app":               "r.example/app:latest",
		"oci:dir:tag":                       "oci:dir:tag",
	} {
		t.Run(in, func(t *testing.T) {
			r, err := ref.Parse(in)
			require.NoError(t, err)
			assert.Equal(t, want, r.Familiar())
		})
	}
}

func TestParts(t *testing.T) {
	r, err := ref.Parse("debian:12")
	require.NoError(t, err)
	assert.Equal(t, "registry-1.docker.io", r.Endpoint())
	assert.Equal(t, "docker.io/library/debian", r.Repository())
	assert.Equal(t, "12", r.Identifier())
	assert.Equal(t, dgst.String(), r.WithDigest(dgst).Identifier())
	assert.Equal(t, "docker.io/library/debian@"+dgst.String(), r.WithDigest(dgst).String())
	assert.Equal(t, "docker.io/library/debian:13", r.WithDigest(dgst).WithTag("13").String())

	r, err = ref.Parse("r.example:5000/x")
	require.NoError(t, err)
	assert.Equal(t, "r.example:5000", r.Endpoint())
	assert.Empty(t, ref.Ref{}.String())

	assert.NoError(t, ref.CheckTag("v1"))
	assert.ErrorIs(t, ref.CheckTag("../x"), ref.ErrInvalid)
	assert.NoError(t, ref.CheckRepo("a/b"))
	assert.ErrorIs(t, ref.CheckRepo("a/../b"), ref.ErrInvalid)
}

// FuzzParse holds the inverses, and that whatever we take for a registry
// reference means the same to go-containerregistry.
func FuzzParse(f *testing.F) {
	for in := range valid {
		f.Add(in)
	}
	for in := range invalid {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		r, err := ref.Parse(in)
		if err != nil {
			require.ErrorIs(t, err, ref.ErrInvalid)
			require.Zero(t, r)
			return
		}
		again, err := ref.Parse(r.String())
		require.NoError(t, err, "canonical form %q", r)
		require.Equal(t, r, again, "canonical form %q", r)
		switch r.Kind {
		case ref.Registry:
			short, err := ref.Parse(r.Familiar())
			require.NoError(t, err, "short form %q", r.Familiar())
			require.Equal(t, r, short, "short form %q", r.Familiar())
			theirs, err := name.NewRepository(r.Repository())
			require.NoError(t, err)
			require.Equal(t, r.Repo, theirs.RepositoryStr())
		case ref.Store:
			if r.Name != "" {
				named, err := ref.Parse("docker://" + r.Familiar())
				require.NoError(t, err, "a name in the store is a registry reference")
				require.Equal(t, r.Tag, named.Tag)
			}
		}
	})
}

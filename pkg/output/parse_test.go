package output

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		in      string
		want    Spec
		wantErr string // "": none
	}{
		"path":                  {in: "out/", want: Spec{Type: "local", Dest: "out/"}},
		"path with =":           {in: "a=b", want: Spec{Type: "local", Dest: "a=b"}},
		"stdout":                {in: "-", want: Spec{Type: "tar", Dest: "-"}},
		"local":                 {in: "type=local,dest=out", want: Spec{Type: "local", Dest: "out"}},
		"oci":                   {in: "type=oci,dest=out.tar", want: Spec{Type: "oci", Dest: "out.tar"}},
		"order":                 {in: "dest=out.tar,type=oci", want: Spec{Type: "oci", Dest: "out.tar"}},
		"blanks and case":       {in: " Type=oci, DEST=Out.tar", want: Spec{Type: "oci", Dest: "Out.tar"}},
		"oci to stdout":         {in: "type=oci", want: Spec{Type: "oci", Dest: "-"}},
		"docker to stdout":      {in: "type=docker", want: Spec{Type: "docker", Dest: "-", DockerTypes: true}},
		"tar to stdout":         {in: "type=tar", want: Spec{Type: "tar", Dest: "-"}},
		"directory":             {in: "type=oci,dest=out,tar=false", want: Spec{Type: "oci", Dest: "out", Dir: true}},
		"quotes":                {in: `type=oci,"dest=a,b.tar"`, want: Spec{Type: "oci", Dest: "a,b.tar"}},
		"value with =":          {in: "type=local,dest=a=b", want: Spec{Type: "local", Dest: "a=b"}},
		"image":                 {in: "type=image", want: Spec{Type: "image"}},
		"image pushed":          {in: "type=image,name=r.example/a:1,push=true", want: Spec{Type: "image", Names: []string{"r.example/a:1"}, Push: true}},
		"names":                 {in: `type=image,"name=a:1,b:2",name=c`, want: Spec{Type: "image", Names: []string{"a:1", "b:2", "c"}}},
		"registry":              {in: "type=registry", want: Spec{Type: "registry", Push: true}},
		"by digest, as in docs": {in: "type=image,name=u/a,push-by-digest=true,name-canonical=true,push=true", want: Spec{Type: "image", Names: []string{"u/a"}, Push: true, PushByDigest: true, Canonical: true}},
		"registry by digest":    {in: "type=registry,push-by-digest=1", want: Spec{Type: "registry", Push: true, PushByDigest: true}},
		"zstd":                  {in: "type=oci,dest=o,compression=zstd,compression-level=19", want: Spec{Type: "oci", Dest: "o", Compression: layer.Compression{Algorithm: "zstd", Level: 19}}},
		"gzip level":            {in: "type=image,compression-level=9,force-compression=true", want: Spec{Type: "image", Compression: layer.Compression{Algorithm: "gzip", Level: 9}, Force: true}},
		"docker types":          {in: "type=image,oci-mediatypes=false", want: Spec{Type: "image", DockerTypes: true}},
		"docker with OCI types": {in: "type=docker,dest=d,oci-mediatypes=true", want: Spec{Type: "docker", Dest: "d"}},
		"docker with zstd":      {in: "type=docker,dest=d,compression=zstd", want: Spec{Type: "docker", Dest: "d", Compression: layer.Compression{Algorithm: "zstd"}}},
		"rewrite":               {in: "type=local,dest=o,rewrite-timestamp=true", want: Spec{Type: "local", Dest: "o", Rewrite: true}},

		"empty":                   {in: "", wantErr: "it is empty"},
		"no type":                 {in: "dest=out.tar", wantErr: "the type is missing"},
		"no type in a list":       {in: "dest=out,tar=false", wantErr: "the type is missing"},
		"unknown type":            {in: "type=rgistry", wantErr: "did you mean registry?"},
		"hopeless type":           {in: "type=helm", wantErr: "known are image, registry, oci"},
		"unknown attribute":       {in: "type=oci,dst=x", wantErr: `unknown attribute "dst": did you mean dest?`},
		"hopeless attribute":      {in: "type=local,dest=x,colour=red", wantErr: "type=local has dest, rewrite-timestamp"},
		"attribute of another":    {in: "type=local,dest=x,push=true", wantErr: "type=local has no attribute push"},
		"attribute of BuildKit":   {in: "type=image,unpack=true", wantErr: "no runtime"},
		"annotation":              {in: "type=image,annotation-index.a=b", wantErr: "--annotation"},
		"boolean":                 {in: "type=image,push=yes", wantErr: "neither true nor false"},
		"boolean without a value": {in: "type=image,push", wantErr: `"push" is not KEY=VALUE`},
		"twice":                   {in: "type=oci,dest=a,dest=b", wantErr: "dest is given twice"},
		"two types":               {in: "type=oci,type=tar", wantErr: "type is given twice"},
		"empty dest":              {in: "type=oci,dest=", wantErr: "no path"},
		"empty name":              {in: `type=image,"name=a,,b"`, wantErr: "a name is empty"},
		"level":                   {in: "type=image,compression-level=x", wantErr: "no number"},
		"level out of range":      {in: "type=image,compression-level=99", wantErr: "level 99"},
		"compression":             {in: "type=image,compression=lz4", wantErr: "gzip, zstd, estargz or uncompressed"},
		"zstd in Docker's types":  {in: "type=image,compression=zstd,oci-mediatypes=false", wantErr: "zstd"},
		"registry, not pushed":    {in: "type=registry,push=false", wantErr: "use type=image"},
		"by digest, not pushed":   {in: "type=image,push-by-digest=true", wantErr: "without push=true"},
		"open quote":              {in: `type=oci,"dest=a`, wantErr: "KEY=VALUE"},
		"two lines":               {in: "type=oci\ndest=x", wantErr: "more than one line"},
		"NUL":                     {in: "type=oci,dest=a\x00b", wantErr: "no path"},
		"NUL in a path":           {in: "a\x00b", wantErr: "no path"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(tc.in)
			if tc.wantErr != "" {
				require.ErrorIs(t, err, ErrInvalid)
				assert.ErrorContains(t, err, tc.wantErr)
				assert.Equal(t, 1, strings.Count(err.Error(), ErrInvalid.Error()), err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
		})
	}
}

func TestKinds(t *testing.T) {
	all := Kinds()
	require.Len(t, all, len(kinds))
	used := map[string]bool{}
	for _, k := range all {
		assert.NotEmpty(t, k.Help, k.Name)
		for _, a := range k.Attributes {
			require.NotEmpty(t, a.Name, "%s has an attribute that is not in the table", k.Name)
			assert.NotEmpty(t, a.Help, a.Name)
			assert.NotEmpty(t, a.Value, a.Name)
			used[a.Name] = true
		}
	}
	for _, a := range attributes {
		assert.True(t, used[a.Name], "no kind has %s", a.Name)
	}
}

func TestCheckAll(t *testing.T) {
	parse := func(args ...string) (out []Spec) {
		for _, a := range args {
			s, err := Parse(a)
			require.NoError(t, err)
			out = append(out, s)
		}
		return out
	}
	require.NoError(t, CheckAll(parse("type=image", "type=registry", "type=oci,dest=a", "out")))
	require.NoError(t, CheckAll(parse("type=oci,dest=a,tar=false", "type=oci,dest=a,tar=false,compression=zstd")))
	require.ErrorIs(t, CheckAll(parse("type=oci", "-")), ErrInvalid)
	require.ErrorIs(t, CheckAll(parse("type=oci,dest=a", "type=docker,dest=a")), ErrInvalid)
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"out", "-", "type=oci,dest=out.tar,tar=false", `type=image,"name=a,b",push=true`, "type=docker,compression=zstd,compression-level=3",
		"type=registry,push-by-digest=true,oci-mediatypes=0", "", "\"", "type=", "=,=",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		spec, err := Parse(s)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		_, err = kindOf(spec.Type)
		require.NoError(t, err)
		_, err = spec.Compression.MediaType(spec.DockerTypes)
		require.NoError(t, err)
	})
}

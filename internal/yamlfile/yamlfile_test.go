package yamlfile_test

import (
	"io"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/manifestctl/manifestctl/internal/yamlfile"
)

type file struct {
	Name string   `yaml:"name"`
	Tags []string `yaml:"tags"`
}

func TestDecode(t *testing.T) {
	for name, tc := range map[string]struct {
		in      string
		lenient bool
		wantErr error
	}{
		"good":                     {in: "name: a\ntags: [b, c]\n"},
		"empty":                    {in: "", wantErr: io.EOF},
		"no YAML":                  {in: "name: [", wantErr: yamlfile.ErrSyntax},
		"unknown field":            {in: "name: a\nnmae: b\n", wantErr: yamlfile.ErrSyntax},
		"unknown field, lenient":   {in: "name: a\nnmae: b\n", lenient: true},
		"a tag without a sequence": {in: "tags: !00\n0: 1\n", wantErr: yamlfile.ErrSyntax}, // the library panics
	} {
		t.Run(name, func(t *testing.T) {
			var f file
			assert.ErrorIs(t, yamlfile.Decode([]byte(tc.in), &f, yamlfile.Options{Strict: !tc.lenient}), tc.wantErr)
		})
	}
}

func FuzzDecodeYAML(f *testing.F) {
	f.Add([]byte("name: a\ntags: [b, c]\n"))
	f.Add([]byte("ima\x86e: a:1\ntags: !00\n000000000:\n  00000: 0\n"))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		var v file
		_ = yamlfile.Decode(raw, &v, yamlfile.Options{Strict: len(raw)%2 == 0, Quote: len(raw)%3 == 0})
	})
}

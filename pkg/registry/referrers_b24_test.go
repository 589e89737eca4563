package registry_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/registry"
)

// TestReferrers_B24: pages that do not end, lead in a circle or elsewhere, and more referrers than anybody has, are errors
// and take a bounded number of requests.
func TestReferrers_B24(t *testing.T) {
	d := digest.FromString("x")
	entry := `{"mediaType":"` + ocispec.MediaTypeImageManifest + `","digest":"` + d.String() + `","size":1}`
	for name, tc := range map[string]struct {
		link    func(n int) string
		entries int
		text    string
		most    int // requests
	}{
		"a loop":             {func(int) string { return "</v2/app/referrers/" + d.String() + `?p=1>; rel="next"` }, 1, "do not end", 3},
		"pages for ever":     {func(n int) string { return fmt.Sprintf(`</v2/app/referrers/%s?p=%d>; rel="next"`, d, n) }, 1, "do not end", 10_001},
		"another host":       {func(int) string { return `<http://registry.invalid/v2/app/referrers/x>; rel="next"` }, 1, "another registry", 1},
		"a hundred thousand": {func(n int) string { return fmt.Sprintf(`</v2/app/referrers/%s?p=%d>; rel="next"`, d, n) }, 2000, "do not end", 60},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			var asked atomic.Int64
			f.when("", "", 0, func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
				w.Header().Set("Link", tc.link(int(asked.Add(1))))
				fmt.Fprintf(w, `{"schemaVersion":2,"manifests":[%s]}`, strings.TrimSuffix(strings.Repeat(entry+",", tc.entries), ","))
				return true
			})
			_, _, err := client(registry.Options{Keychain: someone}).Referrers(t.Context(), mustParse(t, f.host+"/app"), d)
			require.Error(t, err)
			assert.Contains(t, err.Error(), tc.text)
			assert.LessOrEqual(t, int(asked.Load()), tc.most)
		})
	}
}

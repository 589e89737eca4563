package local_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// BenchmarkRunTrue is one more step that does nothing, on a chain of ten.
func BenchmarkRunTrue(b *testing.B) {
	for _, arch := range []string{"amd64", "arm64"} {
		b.Run(arch, func(b *testing.B) {
			dir, _ := program(b, arch)
			w := newBench(b, filepath.Join(b.TempDir(), "store"), map[string]string{"context": dir}, nil)
			p := platform.Platform{OS: "linux", Arch: arch}
			v := base()
			for i := range 10 {
				v = run(p, v, fmt.Sprint("note ", i))
			}
			r, err := w.solve(b, v)
			require.NoError(b, err)
			op := graph.Exec{Args: []string{"/bin/probe"}, Network: graph.NetworkNone}
			next := graph.New(op, p, meta, v)
			b.ResetTimer()
			for b.Loop() {
				_, err := w.Run(b.Context(), next, []solve.Result{r[0]})
				require.NoError(b, err)
			}
		})
	}
}

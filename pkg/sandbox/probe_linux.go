package sandbox

import "context"

// Probe tries every rung by doing it.
func Probe(ctx context.Context, o Options) []Rung {
	p, err := NewPool(ctx, o)
	if err != nil {
		return []Rung{{Name: "user namespace", Err: err.Error()}}
	}
	defer p.Close()
	return []Rung{{Name: "user namespace", OK: true, Detail: string(p.Mode())}}
}

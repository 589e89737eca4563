package output

import (
	"context"
	"io"

	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

func openTar(s Spec, env Env) (Destination, error) {
	f, err := openFile(s, env)
	return &treeTar{spec: s, env: env, file: f}, err
}

// treeTar is the root file system as a tar, everything in it kept.
type treeTar struct {
	spec Spec
	env  Env
	file file
}

// Write implements Destination.
func (t *treeTar) Write(ctx context.Context, p Product) error {
	bar := track(t.env.Events, t.spec, 0)
	err := t.file.write(func(w io.Writer) error {
		out := &joiner{w: bar.writer(w)}
		err := eachTree(ctx, p, func(view *layer.View, _ image.Image, prefix string) error {
			out.next()
			return layer.Flatten(ctx, view, out, prefix)
		})
		if err != nil {
			return err
		}
		return out.close()
	})
	if err == nil {
		bar.done()
	}
	return err
}

// tarEnd is the length of what ends a tar: two blocks of zeros.
const tarEnd = 1024

// joiner makes one tar of several that are written one after the other: it holds the last bytes of each back
// until it is known whether another follows.
type joiner struct {
	w    io.Writer
	held []byte // at most tarEnd
}

// next says that what was written so far is a whole tar and another follows.
func (j *joiner) next() { j.held = j.held[:0] }

// Write implements io.Writer.
func (j *joiner) Write(b []byte) (int, error) {
	total := len(b)
	if excess := len(j.held) + len(b) - tarEnd; excess > 0 {
		old := min(excess, len(j.held))
		if _, err := j.w.Write(j.held[:old]); err != nil {
			return 0, err
		}
		j.held = append(j.held[:0], j.held[old:]...)
		if _, err := j.w.Write(b[:excess-old]); err != nil {
			return 0, err
		}
		b = b[excess-old:]
	}
	j.held = append(j.held, b...)
	return total, nil
}

// close writes the end of the last tar.
func (j *joiner) close() error {
	if len(j.held) == 0 { // no image at all: an empty tar
		j.held = make([]byte, tarEnd)
	}
	_, err := j.w.Write(j.held)
	return err
}

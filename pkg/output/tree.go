package output

import (
	"context"
	"fmt"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// eachTree calls fn with the merged tree of every image and the directory it goes to: "" for a
// single one, else its platform with "_" for "/".
func eachTree(ctx context.Context, p Product, fn func(view *layer.View, img image.Image, prefix string) error) error {
	for _, img := range p.Images {
		prefix := ""
		if len(p.Images) > 1 {
			prefix = strings.ReplaceAll(img.Platform.String(), "/", "_")
		}
		if err := withView(ctx, p, img, func(v *layer.View) error { return fn(v, img, prefix) }); err != nil {
			return fmt.Errorf("%s: %w", img.Platform, err)
		}
	}
	return nil
}

func withView(ctx context.Context, p Product, img image.Image, fn func(*layer.View) error) (err error) {
	view, err := p.View(ctx, img)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := view.Close(); err == nil {
			err = cerr
		}
	}()
	return fn(view)
}

// losses counts what a directory of this user cannot hold, for one warning a kind.
type losses struct{ devices, fifos, setID, xattrs, times int }

func (l losses) warn(sink event.Sink, where string) {
	for _, w := range []struct {
		n    int
		text string
	}{
		{l.devices, "device nodes left out"},
		{l.fifos, "fifos left out: this system has none"},
		{l.setID, "set-user-ID and set-group-ID bits left out: the files belong to another owner here"},
		{l.xattrs, "files lost extended attributes (capabilities, ACLs)"},
		{l.times, "times of symbolic links not kept"},
	} {
		if w.n > 0 {
			sink.Emit(event.Event{Kind: event.Warning, Text: fmt.Sprintf("%s: %d %s (type=tar keeps everything)", where, w.n, w.text)})
		}
	}
}
